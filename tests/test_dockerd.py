"""Where a docker daemon is, by options and by the environment, and in which version it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncpull.dockerd import DaemonAddress, common_version
from asyncpull.errors import ConfigurationError
from asyncpull.tls import TlsFiles

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("host", "environ", "url", "socket"),
    [
        (None, {}, "http://docker", "/var/run/docker.sock"),
        (None, {"DOCKER_HOST": "unix:///run/x.sock"}, "http://docker", "/run/x.sock"),
        ("unix:///run/y.sock", {"DOCKER_HOST": "unix:///run/x.sock"}, "http://docker", "/run/y.sock"),
        # In an option tcp means TLS, as in skopeo; in the environment it does if the environment says so, as in docker.
        ("tcp://h:1", {}, "https://h:1", None),
        ("https://h", {}, "https://h:2376", None),
        ("http://h", {}, "http://h:2375", None),
        ("http://h:7", {"DOCKER_TLS_VERIFY": "1"}, "http://h:7", None),
        ("tcp://[::1]:7/base/", {}, "https://[::1]:7/base", None),
        (None, {"DOCKER_HOST": "tcp://h"}, "http://h:2375", None),
        (None, {"DOCKER_HOST": "tcp://h:7", "DOCKER_TLS_VERIFY": ""}, "http://h:7", None),
        (None, {"DOCKER_HOST": "tcp://h", "DOCKER_TLS_VERIFY": "1"}, "https://h:2376", None),
        (None, {"DOCKER_HOST": "https://h:7"}, "https://h:7", None),
    ],
)
def test_where_the_daemon_is(host: str | None, environ: dict[str, str], url: str, socket: str | None) -> None:
    found = DaemonAddress.find(host, environ={"HOME": "/nowhere"} | environ)
    assert (found.url, found.socket) == (url, socket)


@pytest.mark.parametrize(
    ("host", "option", "environ", "verifies"),
    [
        ("tcp://h", None, {}, True),
        ("tcp://h", False, {}, False),
        (None, None, {"DOCKER_HOST": "tcp://h", "DOCKER_TLS_VERIFY": "1"}, True),
        (None, None, {"DOCKER_HOST": "tcp://h", "DOCKER_CERT_PATH": "/nowhere"}, False),
        (None, True, {"DOCKER_HOST": "tcp://h", "DOCKER_CERT_PATH": "/nowhere"}, True),
        (None, False, {"DOCKER_HOST": "tcp://h", "DOCKER_TLS_VERIFY": "1"}, False),
    ],
)
def test_whose_certificate_is_verified(
    host: str | None, option: bool | None, environ: dict[str, str], verifies: bool
) -> None:
    assert DaemonAddress.find(host, tls_verify=option, environ=environ).verify_tls is verifies


def test_which_certificates_are_used(tmp_path: Path) -> None:
    said, usual = tmp_path / "said", tmp_path / "home" / ".docker"
    for directory in (said, usual):
        directory.mkdir(parents=True)
        for name in ("ca", "cert", "key"):
            (directory / f"{name}.pem").touch()
    environ = {"DOCKER_HOST": "tcp://h", "DOCKER_TLS_VERIFY": "1", "HOME": str(tmp_path / "home")}

    def files(directory: Path) -> TlsFiles:
        return TlsFiles((directory / "ca.pem",), ((directory / "cert.pem", directory / "key.pem"),))

    assert DaemonAddress.find(environ=environ).tls == files(usual)
    assert DaemonAddress.find(environ=environ | {"DOCKER_CERT_PATH": str(said)}).tls == files(said)
    assert DaemonAddress.find(cert_dir=said, environ=environ).tls == files(said)
    assert DaemonAddress.find("tcp://h", cert_dir=said, environ={}).tls == files(said)
    assert DaemonAddress.find("tcp://h", environ=environ).tls == TlsFiles()
    assert DaemonAddress.find("http://h", cert_dir=said, environ={}).tls == TlsFiles()


@pytest.mark.parametrize(
    "host", ["ssh://h", "fd://", "unix://", "unix://relative", "tcp://", "tcp://:1", "tcp://h:x", "h:1", "/run/x.sock"]
)
def test_what_is_no_place_for_a_daemon(host: str) -> None:
    with pytest.raises(ConfigurationError, match="no place where a docker daemon can be asked"):
        DaemonAddress.find(host, environ={})


def test_a_password_is_not_told() -> None:
    with pytest.raises(ConfigurationError, match="has a user in it") as caught:
        DaemonAddress.find("tcp://user:secret@h:1", environ={})
    assert "secret" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("theirs", "common"),
    [
        ("1.51", "1.51"),
        ("1.99", "1.51"),
        ("2.0", "1.51"),
        ("1.41", "1.41"),
        ("1.9", "1.9"),
        ("", "1.24"),
        ("x", "1.24"),
        ("1." + "9" * 5000, "1.24"),
    ],
)
def test_the_newest_version_that_both_know(theirs: str, common: str) -> None:
    assert common_version(theirs) == common
