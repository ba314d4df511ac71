"""A token server as registries have beside them: real HTTP, and JSON web tokens that docker-registry accepts.

::

    authority = TokenAuthority(directory)                      # a key, and the certificate that the registry trusts
    with token_server(authority) as tokens:
        tokens.users["me"] = "secret"
        tokens.grants["me"] = {"a/b": {"pull"}}                # None for whoever is nobody
        with docker_registry(directory, auth=tokens.configuration): …
        …  tokens.requests

It speaks both protocols of distribution: GET with a user and a password, and POST with a refresh token (OAuth 2). The
openssl command signs. Nothing of asyncpull is used here.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ISSUER, SERVICE = "the tests", "registry of the tests"
REGISTRY_LEEWAY_SECONDS = 60
"""For so long docker-registry takes a token that has expired."""


class TokenAuthority:
    """The key that tokens are signed with, and the file with its certificate."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.certificate, self._key = directory / "authority.crt", directory / "authority.key"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority"]
        files = ["-keyout", str(self._key), "-out", str(self.certificate)]
        subprocess.run([*command, *files], check=True, capture_output=True)
        lines = self.certificate.read_text().split("-----")[2]
        self._header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(lines.split())]}

    def sign(self, claims: Mapping[str, object]) -> str:
        """A token with these claims."""
        signed = f"{_base64(json.dumps(self._header).encode())}.{_base64(json.dumps(claims).encode())}"
        command = ["openssl", "dgst", "-sha256", "-sign", str(self._key)]
        signature = subprocess.run(command, input=signed.encode(), check=True, capture_output=True).stdout
        return f"{signed}.{_base64(signature)}"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its parameters, of query or form, and who asked, by which means; and what the answer was."""

    method: str
    parameters: Mapping[str, list[str]]
    user: str | None
    authorization: str
    status: int


@dataclass(slots=True)
class TokenServer:
    """A running server; ``realm`` is its URL. What it knows may be changed at any time."""

    authority: TokenAuthority
    realm: str = ""
    users: dict[str, str] = field(default_factory=dict)
    refresh_tokens: dict[str, str] = field(default_factory=dict)
    """Identity tokens, and whose they are."""
    grants: dict[str | None, dict[str, set[str]]] = field(default_factory=dict)
    """What users may do to repositories, nobody being None; a user that is not here may do all."""
    lifetime: int = 300
    """Seconds that a token is said to be good for."""
    age: int = 0
    """Seconds since a token was issued, when it is handed out."""
    left: float | None = None
    """Seconds for which docker-registry takes a token, its leeway included; None: as it is said."""
    knows_post: bool = True
    requests: list[Asked] = field(default_factory=list)

    @property
    def configuration(self) -> dict[str, object]:
        """What docker-registry is to be told, below ``auth``."""
        trusted = str(self.authority.certificate)
        return {"token": {"realm": self.realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": trusted}}

    def answer(self, method: str, parameters: Mapping[str, list[str]], authorization: str) -> tuple[int, object]:
        """Status and document for a request, which is recorded."""
        status, user = self._who(method, parameters, authorization)
        self.requests.append(Asked(method, parameters, user, authorization, status))
        if status != 200:
            return status, {"details": "incorrect username or password"}
        now = int(time.time())
        left = self.lifetime if self.left is None else self.left - REGISTRY_LEEWAY_SECONDS
        token = self.authority.sign(
            {
                "iss": ISSUER,
                "aud": SERVICE,
                "sub": user or "",
                "iat": now,
                "nbf": now - 3600,
                "exp": int(now + left),
                "jti": str(len(self.requests)),
                "access": [*self._access(user, " ".join(parameters.get("scope", [])))],
            }
        )
        issued = datetime.fromtimestamp(now - self.age, UTC).isoformat().replace("+00:00", "Z")
        return 200, {
            "token" if method == "GET" else "access_token": token,
            "expires_in": self.lifetime,
            "issued_at": issued,
        }

    def _who(self, method: str, parameters: Mapping[str, list[str]], authorization: str) -> tuple[int, str | None]:
        if method == "POST":
            if not self.knows_post:
                return 405, None
            user = self.refresh_tokens.get(parameters.get("refresh_token", [""])[0])
            well = parameters.get("grant_type") == ["refresh_token"] and "client_id" in parameters
            return (400, None) if not well else (200, user) if user else (401, None)
        if not authorization:
            return 200, None
        name, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        if password and self.users.get(name) == password:
            return 200, name
        owner = self.refresh_tokens.get(password)
        return (200, owner) if owner else (401, None)

    def _access(self, user: str | None, scope: str) -> Iterator[dict[str, object]]:
        for word in scope.split():
            kind, name, actions = word.split(":")
            wanted = set(actions.split(","))
            allowed = wanted if user not in self.grants else wanted & self.grants[user].get(name, set())
            if allowed:
                yield {"type": kind, "name": name, "actions": sorted(allowed)}


@contextmanager
def token_server(authority: TokenAuthority) -> Iterator[TokenServer]:
    """Run a server on a free port of the loopback interface, in threads of this process, until the block ends."""
    server = TokenServer(authority)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply("GET", parse_qs(urlsplit(self.path).query))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._reply("POST", parse_qs(body.decode()))

        def _reply(self, method: str, parameters: Mapping[str, list[str]]) -> None:
            status, document = server.answer(method, parameters, self.headers.get("Authorization", ""))
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Be silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        server.realm = f"http://127.0.0.1:{listener.server_address[1]}/token"
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
