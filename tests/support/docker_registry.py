"""Debian's docker-registry on a free loopback port, started and ended by the tests, and what is pushed to it."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from tests.support.images import Index

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.images import Image

PROGRAM = "docker-registry"
USER, PASSWORD = "tester", "open sesame"
_HTPASSWD = f"{USER}:$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n"
_START_SECONDS = 90


def is_installed() -> bool:
    """Tell whether the program is on this machine (Debian: package docker-registry)."""
    return shutil.which(PROGRAM) is not None


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry. ``address`` is ``127.0.0.1:PORT``, as in references."""

    address: str
    log: Path
    certificate: Path | None = None
    """The certificate that signed itself, where the registry speaks TLS."""
    password: bool = False

    @property
    def data(self) -> Path:
        """The folder of everything that was uploaded."""
        return self.log.parent / "data"

    def push(self, repository: str, tag: str, target: Image | Index) -> str:
        """Upload an image or index with all that belongs to it; return its reference by tag."""
        for each in target.images if isinstance(target, Index) else (target,):
            for blob in each.blobs:
                self.upload(repository, blob.digest, len(blob.data), blob.data)
            self.put_manifest(repository, each.manifest.digest, each.manifest.data, each.manifest.media_type)
        self.put_manifest(repository, tag, target.manifest.data, target.manifest.media_type)
        return f"{self.address}/{repository}:{tag}"

    def upload(self, repository: str, digest: str, size: int, data: bytes | BinaryIO) -> None:
        """Upload a blob of ``size`` bytes, unless the repository has it."""
        status, _ = self._request("HEAD", f"/v2/{repository}/blobs/{digest}")
        if status == 200:
            return
        _, headers = self._expect(202, "POST", f"/v2/{repository}/blobs/uploads/")
        location = urlsplit(headers["Location"])
        query = f"{location.query}&digest={digest}" if location.query else f"digest={digest}"
        self._expect(201, "PUT", f"{location.path}?{query}", data, "application/octet-stream", size)

    def put_manifest(self, repository: str, reference: str, manifest: bytes, media_type: str) -> None:
        """Upload a manifest or index under a tag or its digest."""
        path = f"/v2/{repository}/manifests/{reference}"
        self._expect(201, "PUT", path, manifest, media_type, len(manifest))

    def requests(self) -> list[str]:
        """Return method and path of every request answered so far, from the access log: ``"GET /v2/"``."""
        lines = (line.split('"') for line in self.log.read_text(errors="replace").splitlines())
        return [
            parts[1].removesuffix(" HTTP/1.1") for parts in lines if len(parts) > 2 and parts[1].endswith("HTTP/1.1")
        ]

    def _expect(
        self, wanted: int, method: str, path: str, body: bytes | BinaryIO = b"", media_type: str = "", size: int = 0
    ) -> tuple[int, dict[str, str]]:
        status, headers = self._request(method, path, body, media_type, size)
        if status != wanted:
            raise RuntimeError(f"{method} {path} on {self.address}: {status}, not {wanted}")
        return status, headers

    def _request(
        self, method: str, path: str, body: bytes | BinaryIO = b"", media_type: str = "", size: int = 0
    ) -> tuple[int, dict[str, str]]:
        headers = {"Content-Length": str(size)}
        if media_type:
            headers["Content-Type"] = media_type
        if self.password:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        connection = self._connection()
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            response.read()
            return response.status, dict(response.getheaders())
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self.certificate is None:
            return http.client.HTTPConnection(self.address, timeout=60)
        context = ssl.create_default_context(cafile=str(self.certificate))
        return http.client.HTTPSConnection(self.address, timeout=60, context=context)


@contextmanager
def docker_registry(
    directory: Path,
    *,
    tls: bool = False,
    password: bool = False,
    auth: Mapping[str, object] | None = None,
    mirror_of: str | None = None,
) -> Iterator[Registry]:
    """Run a registry that keeps everything below ``directory``, and end it, by its process ID, with the block.

    With ``tls`` it shows a certificate that it signed itself; with ``password`` it wants USER and PASSWORD; ``auth`` is
    its configuration of that name, and whoever wants to push then has to do it before. With ``mirror_of``, the URL of a
    registry, it takes from there what it does not have, and nothing can be pushed to it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "access.log"
    certificate = _make_certificate(directory) if tls else None
    address = f"127.0.0.1:{free_port()}"
    configuration = directory / "config.yml"
    settings = _configuration(directory, address, certificate, password=password)
    settings |= {"auth": dict(auth)} if auth else {}
    settings |= {"proxy": {"remoteurl": mirror_of}} if mirror_of else {}
    configuration.write_text(json.dumps(settings))
    with log.open("wb") as out:
        process = subprocess.Popen([PROGRAM, "serve", str(configuration)], stdout=out, stderr=subprocess.STDOUT)
        registry = Registry(address, log, certificate, password)
        try:
            _wait_until_it_answers(registry, process)
            yield registry
        finally:
            process.terminate()
            process.wait()


def _configuration(directory: Path, address: str, certificate: Path | None, *, password: bool) -> dict[str, object]:
    """Return the configuration as JSON, which is YAML too."""
    configuration: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "compatibility": {"schema1": {"enabled": True}},
        "http": {"addr": address, "secret": "the same for every run"}
        | ({"tls": {"certificate": str(certificate), "key": str(directory / "key.pem")}} if certificate else {}),
    }
    if password:
        (directory / "htpasswd").write_text(_HTPASSWD)
        configuration["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    return configuration


def _make_certificate(directory: Path) -> Path:
    certificate = directory / "ca.crt"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    files = ["-keyout", str(directory / "key.pem"), "-out", str(certificate)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    return certificate


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_answers(registry: Registry, process: subprocess.Popen[bytes]) -> None:
    """Ask until the registry answers; it has no way to tell when it is ready."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            registry._request("GET", "/v2/")
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{PROGRAM} did not start: {registry.log.read_text()[-2000:]}") from error
            time.sleep(0.02)
        else:
            return
