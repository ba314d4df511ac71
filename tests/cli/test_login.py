"""``asyncpull login`` and ``logout`` with a real registry, real token server and real programs; podman reads along."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.credential_program import credential_program
from tests.support.docker_registry import PASSWORD, USER, Registry, docker_registry, is_installed
from tests.support.images import image
from tests.support.peers import debian_peer, newest_peer
from tests.support.podman_store import podman_store
from tests.support.tars import file, tar
from tests.support.token_server import TokenAuthority, TokenServer, token_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.command import Command, Ended
    from tests.support.peers import Peer

pytestmark = pytest.mark.skipif(not is_installed(), reason="docker-registry is not installed")

DONE, NOT_FOUND, USAGE, REFUSED_CONTENT, UNAVAILABLE, NO_PERMISSION = 0, 2, 64, 65, 69, 77
IMAGE = image([tar([file("etc/hostname", b"here")])])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that wants USER and PASSWORD, and has an image."""
    with docker_registry(tmp_path_factory.mktemp("registry"), password=True) as running:
        running.push("a/b", "t", IMAGE)
        yield running


def login(command: Command, password: str, *arguments: str, verb: str = "login") -> Ended:
    """Run the command with ``password`` on stdin."""
    from tests.support.command import Ended

    ended = subprocess.run(
        [*command.arguments, verb, "--tls-verify=false", "--log-level", "debug", *arguments],
        env=command.environment(),
        input=password.encode(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def assert_no_secret(ended: Ended, *secrets: str) -> None:
    import base64

    for secret in (*secrets, PASSWORD):
        for form in (secret, base64.b64encode(f"{USER}:{secret}".encode()).decode()):
            assert form not in ended.out + ended.err


def test_logging_in_and_out(command: Command, registry: Registry, tmp_path: Path) -> None:
    authfile = tmp_path / "sub" / "auth.json"
    at = ("--authfile", str(authfile), registry.address)
    ended = login(command, PASSWORD + "\n", "-u", USER, "--password-stdin", "-v", *at)
    assert (ended.code, ended.out) == (DONE, f"Used:  {authfile}\nLogin Succeeded!\n"), ended.err
    assert_no_secret(ended)
    assert list(json.loads(authfile.read_text())["auths"]) == [registry.address]
    assert authfile.stat().st_mode & 0o777 == 0o600
    assert authfile.parent.stat().st_mode & 0o777 == 0o700

    assert command("login", "--get-login", *at).out == f"{USER}\n"
    assert command("login", "--get-login", "--json", *at).json() == {"registry": registry.address, "username": USER}
    again = login(command, "", *at)
    assert (again.code, again.out.splitlines()) == (
        DONE,
        [
            f"Authenticating with existing credentials for {registry.address}",
            f"Existing credentials are valid. Already logged in to {registry.address}",
        ],
    )
    assert_no_secret(again)
    pulled = login(command, "", "--authfile", str(authfile), f"{registry.address}/a/b:t", verb="pull")
    assert pulled.code == DONE, pulled.err
    assert_no_secret(pulled)

    out = command("logout", *at)
    assert (out.code, out.out) == (DONE, f"Removed login credentials for {registry.address}\n")
    assert json.loads(authfile.read_text()) == {"auths": {}}
    again = command("logout", *at)
    assert (again.code, again.out) == (NOT_FOUND, "")
    assert f"not logged into {registry.address}" in again.err
    assert command("login", "--get-login", *at).code == NOT_FOUND
    refused = login(command, "", "--authfile", str(authfile), f"{registry.address}/a/b:t", verb="pull")
    assert refused.code == NO_PERMISSION


def test_where_nothing_is_named(command: Command, registry: Registry, tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    environment = {"XDG_RUNTIME_DIR": str(runtime)}
    arguments = ("login", "--tls-verify=false", "-u", USER, "-p", PASSWORD, registry.address)
    missing = command(*arguments, environment=environment)
    assert missing.code == USAGE
    assert "XDG_RUNTIME_DIR names, does not exist" in missing.err
    runtime.mkdir()
    assert command(*arguments, environment=environment).code == DONE
    assert (runtime / "containers" / "auth.json").exists()
    docker = {"XDG_RUNTIME_DIR": str(runtime), "DOCKER_CONFIG": str(tmp_path / "docker")}
    assert command(*arguments, environment=docker).code == DONE
    assert list(json.loads((tmp_path / "docker" / "config.json").read_text())["auths"]) == [registry.address]
    assert command("logout", "--all", environment=environment).out == "Removed login credentials for all registries\n"
    assert json.loads((runtime / "containers" / "auth.json").read_text()) == {"auths": {}}
    # What another tool keeps elsewhere is not ours to remove.
    home = tmp_path / "home"
    (home / ".docker").mkdir(parents=True)
    (tmp_path / "docker" / "config.json").rename(home / ".docker" / "config.json")
    theirs = command("logout", "--tls-verify=false", registry.address, environment={**environment, "HOME": str(home)})
    assert theirs.code == DONE
    assert "Please use docker logout instead" in theirs.out


def test_a_namespace_has_a_login_of_its_own(command: Command, registry: Registry, tmp_path: Path) -> None:
    authfile = tmp_path / "auth.json"
    at = ("--authfile", str(authfile), f"{registry.address}/a")
    assert login(command, PASSWORD, "-u", USER, "--password-stdin", *at).code == DONE
    assert list(json.loads(authfile.read_text())["auths"]) == [f"{registry.address}/a"]
    assert command("login", "--get-login", "--authfile", str(authfile), registry.address).code == NOT_FOUND
    assert login(command, "", "--authfile", str(authfile), f"{registry.address}/a/b:t", verb="pull").code == DONE
    assert command("logout", *at).code == DONE


def test_a_registry_with_a_certificate_of_its_own(command: Command, tmp_path: Path) -> None:
    authfile = tmp_path / "auth.json"
    with docker_registry(tmp_path / "registry", tls=True, password=True) as running:
        assert running.certificate is not None
        (tmp_path / "certificates").mkdir()
        (tmp_path / "certificates" / "ca.crt").write_bytes(running.certificate.read_bytes())
        arguments = ("login", "-u", USER, "-p", PASSWORD, "--authfile", str(authfile), running.address)
        unknown = command(*arguments)
        assert unknown.code == UNAVAILABLE
        assert "certificate is refused" in unknown.err
        assert not authfile.exists()
        assert command(*arguments, "--cert-dir", str(tmp_path / "certificates")).code == DONE
        assert list(json.loads(authfile.read_text())["auths"]) == [running.address]


def test_wrong_credentials_change_nothing(command: Command, registry: Registry, tmp_path: Path) -> None:
    authfile = tmp_path / "auth.json"
    authfile.write_text('{"auths": {}}')
    ended = login(
        command, "sesame street", "-u", USER, "--password-stdin", "--authfile", str(authfile), registry.address
    )
    assert (ended.code, ended.out) == (NO_PERMISSION, "")
    assert f'logging into "{registry.address}": invalid username/password' in ended.err
    assert_no_secret(ended, "sesame street")
    assert authfile.read_text() == '{"auths": {}}'
    assert [path.name for path in tmp_path.iterdir()] == ["auth.json"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["login", "-u", "me", "-p", "x", "--password-stdin", "quay.io"], USAGE, "two passwords"),
        (["login", "--password-stdin", "quay.io"], USAGE, "needs --username"),
        (["login", "quay.io"], USAGE, "no terminal to ask at"),
        (["login", "-u", "me", "quay.io"], USAGE, "no terminal to ask at"),
        (["login", "-u", "me", "-p", "x", "quay.io/a:tag"], USAGE, "is no registry"),
        (
            ["login", "-u", "me", "-p", "x", "--authfile", "/a", "--compat-auth-file", "/b", "quay.io"],
            USAGE,
            "two files",
        ),
        (["login", "-u", "me", "-p", "x"], USAGE, "no registry is given"),
        (["logout", "--all", "quay.io"], USAGE, "--all takes no registry"),
        (["logout", "--authfile", "/no/such/file", "quay.io"], USAGE, "/no/such/file: no such file"),
    ],
)
def test_what_cannot_be_meant(command: Command, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    (tmp_path / "registries.conf").touch()
    environment = {"XDG_RUNTIME_DIR": str(tmp_path), "CONTAINERS_REGISTRIES_CONF": str(tmp_path / "registries.conf")}
    ended = command(*arguments, environment=environment)
    assert ended.code == code, ended.err
    assert message in ended.err


def test_the_first_registry_that_is_searched(command: Command, registry: Registry, tmp_path: Path) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text(f'unqualified-search-registries = ["{registry.address}", "quay.io"]\n')
    conf_and_file = ("--registries-conf", str(conf), "--authfile", str(tmp_path / "auth.json"))
    assert login(command, PASSWORD, "-u", USER, "--password-stdin", *conf_and_file).code == DONE
    assert command("logout", *conf_and_file).out == f"Removed login credentials for {registry.address}\n"


def test_registries_conf_says_how_the_registry_is_asked(command: Command, registry: Registry, tmp_path: Path) -> None:
    kept = credential_program(tmp_path / "bin", "one", {})
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    conf = tmp_path / "registries.conf"
    head = 'credential-helpers = ["one", "containers-auth.json"]\n[[registry]]\n'
    at = ("--registries-conf", str(conf), "--authfile", str(tmp_path / "auth.json"), registry.address)
    arguments = ("login", "-u", USER, "-p", PASSWORD, *at)
    # It is insecure; its images are elsewhere, which is nobody to log in to.
    conf.write_text(f'{head}location = "127.0.0.1:1"\nprefix = "{registry.address}"\ninsecure = true\n')
    ended = command(*arguments, environment=environment)
    assert ended.code == DONE, ended.err
    assert json.loads(kept.read_text()) == {registry.address: [USER, PASSWORD]}
    assert not (tmp_path / "auth.json").exists()
    conf.write_text(f'{head}location = "{registry.address}"\ninsecure = true\n')
    authfile = ("--authfile", str(tmp_path / "empty.json"))
    (tmp_path / "empty.json").write_text("{}")
    pulled = command("pull", *at[:2], *authfile, f"{registry.address}/a/b:t", environment=environment)
    assert pulled.code == DONE, pulled.err
    assert command("logout", *at[:2], *authfile, registry.address, environment=environment).code == DONE
    assert json.loads(kept.read_text()) == {}
    conf.write_text(f'{head}location = "{registry.address}"\nblocked = true\n')
    blocked = command(*arguments, environment=environment)
    assert (blocked.code, "is blocked by" in blocked.err) == (REFUSED_CONTENT, True)
    assert json.loads(kept.read_text()) == {}


def test_logins_at_once_lose_nothing(command: Command, registry: Registry, tmp_path: Path) -> None:
    authfile = tmp_path / "auth.json"
    keys = [f"{registry.address}/n{number}" for number in range(5)]
    at = ("login", "--tls-verify=false", "-u", USER, "-p", PASSWORD, "--authfile", str(authfile))
    running = [command.start(*at, key) for key in keys]
    for process in running:
        out, err = process.communicate(timeout=60)
        assert process.returncode == DONE, out + err
    assert sorted(json.loads(authfile.read_text())["auths"]) == keys


def test_programs_keep_logins(command: Command, registry: Registry, tmp_path: Path) -> None:
    kept = credential_program(tmp_path / "bin", "one", {})
    authfile = tmp_path / "auth.json"
    authfile.write_text(json.dumps({"credHelpers": {registry.address: "one"}}))
    before = authfile.read_text()
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    at = ("--tls-verify=false", "--log-level", "debug", "--authfile", str(authfile), registry.address)
    ended = command("login", "-u", USER, "-p", PASSWORD, "-v", *at, environment=environment)
    assert (ended.code, ended.out) == (DONE, "Used:  credential helper: one\nLogin Succeeded!\n"), ended.err
    assert_no_secret(ended)
    assert json.loads(kept.read_text()) == {registry.address: [USER, PASSWORD]}
    assert authfile.read_text() == before
    assert command("login", "--get-login", *at, environment=environment).out == f"{USER}\n"
    pulled = command("pull", *at[:-1], f"{registry.address}/a/b:t", environment=environment)
    assert pulled.code == DONE, pulled.err
    assert_no_secret(pulled)
    assert command("logout", *at, environment=environment).code == DONE
    assert json.loads(kept.read_text()) == {}
    # Without the program nothing can be kept, and it is said before anything changes.
    gone = command("login", "-u", USER, "-p", PASSWORD, *at)
    assert gone.code == USAGE
    assert "docker-credential-one is not installed" in gone.err
    assert_no_secret(gone)
    assert authfile.read_text() == before


def test_at_a_terminal_a_person_is_asked(command: Command, registry: Registry, tmp_path: Path) -> None:
    arguments = ["login", "--tls-verify=false", "--authfile", str(tmp_path / "auth.json"), registry.address]
    code, shown = at_terminal(command, arguments, [("Username: ", USER), ("Password: ", PASSWORD)])
    assert code == DONE, shown
    assert "Login Succeeded!" in shown
    assert PASSWORD not in shown
    # Another password is asked for where the one that is kept is no longer good; the user name need not be repeated.
    document = (tmp_path / "auth.json").read_text()
    subprocess.run(["sed", "-i", 's/"auth": ".*"/"auth": "dGVzdGVyOm9sZA=="/', str(tmp_path / "auth.json")], check=True)
    code, shown = at_terminal(command, arguments, [(f"Username ({USER}): ", ""), ("Password: ", PASSWORD)])
    assert code == DONE, shown
    assert "Existing credentials are invalid" in shown
    assert (tmp_path / "auth.json").read_text() == document


def test_an_interrupt_at_the_prompt_ends_it(command: Command, registry: Registry, tmp_path: Path) -> None:
    arguments = ["login", "--tls-verify=false", "--authfile", str(tmp_path / "auth.json"), registry.address]
    for prompts in ([("Username: ", "\x03")], [("Username: ", USER), ("Password: ", "\x03")]):
        code, shown = at_terminal(command, arguments, prompts)
        assert code == 130, shown
    assert not (tmp_path / "auth.json").exists()


def at_terminal(command: Command, arguments: list[str], answers: list[tuple[str, str]]) -> tuple[int, str]:
    """Run the command at a terminal and answer its prompts in order; return its code, and all that was shown.

    Ctrl-C is pressed until the command ends: Python loses one that comes just before it begins to wait for a line.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execve(command.arguments[0], [*command.arguments, *arguments], command.environment())
        finally:
            os._exit(99)
    shown, seen, deadline = "", 0, time.monotonic() + 30
    waiting, again = list(answers), deadline
    while time.monotonic() < deadline:
        if waiting and waiting[0][0] in shown[seen:]:
            prompt, text = waiting.pop(0)
            seen = shown.index(prompt, seen) + len(prompt)
            os.write(terminal, (text if text == "\x03" else text + "\n").encode())
            again = time.monotonic() + 1
        if not select.select([terminal], [], [], 0.05)[0]:
            if answers[-1][1] == "\x03" and not waiting and time.monotonic() > again:
                os.write(terminal, b"\x03")
                again = time.monotonic() + 1
            continue
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece.decode(errors="replace")
    os.close(terminal)
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status), shown


# With tokens


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[tuple[TokenServer, str]]:
    """A token server and the address of a registry with an image, which wants its tokens."""
    directory = tmp_path / "registry"
    with docker_registry(directory) as filling:
        filling.push("a/b", "t", IMAGE)
    with token_server(TokenAuthority(tmp_path / "authority")) as server:
        server.users[USER] = PASSWORD
        server.grants |= {None: {}, USER: {"a/b": {"pull"}}}
        with docker_registry(directory, auth=server.configuration) as registry:
            yield server, registry.address


def test_tokens_and_a_pull_show_no_secret(command: Command, tokens: tuple[TokenServer, str], tmp_path: Path) -> None:
    server, address = tokens
    authfile = tmp_path / "auth.json"
    at = ("--authfile", str(authfile))
    ended = login(command, "sesame street", "-u", USER, "--password-stdin", *at, address)
    assert ended.code == NO_PERMISSION
    assert_no_secret(ended, "sesame street")
    ended = login(command, PASSWORD, "-u", USER, "--password-stdin", *at, address)
    assert ended.code == DONE, ended.err
    assert_no_secret(ended)
    pulled = login(command, "", *at, f"{address}/a/b:t", verb="pull")
    assert pulled.code == DONE, pulled.err
    assert_no_secret(pulled)
    assert "eyJ" not in pulled.err  # how every token begins

    server.refresh_tokens["identity-sesame"] = USER
    authfile.write_text(json.dumps({"auths": {address: {"auth": "Og==", "identitytoken": "identity-sesame"}}}))
    by_identity = login(command, "", *at, f"{address}/a/b:t", verb="pull")
    assert by_identity.code == DONE, by_identity.err
    assert_no_secret(by_identity, "identity-sesame")
    assert server.requests[-1].method == "POST"
    refused = login(command, "", *at, address)
    assert refused.code == USAGE
    assert "is an identity token" in refused.err
    server.refresh_tokens.clear()
    gone = login(command, "", *at, f"{address}/a/b:t", verb="pull")
    assert gone.code == NO_PERMISSION
    assert_no_secret(gone, "identity-sesame")


# With podman


@pytest.fixture(params=["debian", "newest"])
def podman(request: pytest.FixtureRequest) -> Peer:
    peer = debian_peer() if request.param == "debian" else newest_peer()
    if peer is None or not peer.has("podman"):
        pytest.skip("this podman is not installed")
    return peer


def test_podman_reads_what_we_write_and_the_other_way_round(command: Command, registry: Registry, podman: Peer) -> None:
    with podman_store(podman.share) as (directory, command_of_theirs):
        authfile = directory / "auth.json"
        theirs = (*command_of_theirs, "login", "--tls-verify=false", "--authfile", str(authfile))
        podman.run(*theirs, "-u", USER, "-p", PASSWORD, registry.address)
        written = authfile.read_bytes()
        assert command("login", "--get-login", "--authfile", str(authfile), registry.address).out == f"{USER}\n"
        # What they wrote, we write byte for byte.
        authfile.unlink()
        assert (
            login(command, PASSWORD, "-u", USER, "--password-stdin", "--authfile", str(authfile), registry.address).code
            == DONE
        )
        assert authfile.read_bytes() == written
        assert podman.run(*theirs, "--get-login", registry.address) == f"{USER}\n"
        assert "Existing credentials are valid" in podman.run(*theirs, registry.address)
        # Both for the same file: nobody loses what the other wrote.
        key = f"{registry.address}/a"
        assert login(command, PASSWORD, "-u", USER, "--password-stdin", "--authfile", str(authfile), key).code == DONE
        podman.run(*theirs, "-u", USER, "-p", PASSWORD, f"{registry.address}/b")
        assert list(json.loads(authfile.read_text())["auths"]) == [registry.address, key, f"{registry.address}/b"]
        assert command("logout", "--authfile", str(authfile), f"{registry.address}/b").code == DONE
        podman.run(*command_of_theirs, "logout", "--authfile", str(authfile), key)
        assert list(json.loads(authfile.read_text())["auths"]) == [registry.address]
        ours = command("logout", "--authfile", str(authfile), registry.address).out
        podman.run(*theirs, "-u", USER, "-p", PASSWORD, registry.address)
        assert podman.run(*command_of_theirs, "logout", "--authfile", str(authfile), registry.address) == ours


def test_podman_logs_in_with_tokens_likewise(tokens: tuple[TokenServer, str], command: Command, podman: Peer) -> None:
    server, address = tokens
    with podman_store(podman.share) as (directory, theirs):
        authfile = directory / "auth.json"
        arguments = ("login", "--tls-verify=false", "--authfile", str(authfile), "-u", USER, "-p", PASSWORD, address)
        podman.run(*theirs, *arguments)
        authfile.unlink()
        ended = login(command, PASSWORD, "-u", USER, "--password-stdin", "--authfile", str(authfile), address)
        assert ended.code == DONE
        first, second = server.requests
        assert first == second
