"""nginx before a registry does to its clients what its options say, and its log tells what was sent."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import Authority, Certificate, make_authority
from tests.support.docker_registry import docker_registry
from tests.support.docker_registry import is_installed as has_docker_registry
from tests.support.images import OCI_MANIFEST, Image, image, noise, sha256
from tests.support.nginx import Nginx, Options, Refusal, answers_at_once, is_installed, nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not (is_installed() and has_docker_registry()), reason="needs the programs nginx and docker-registry"
)
LAYER = noise(1, 1_000_000)
IMAGE: Image = image([LAYER], compression="none")
BLOB = f"/v2/some/image/blobs/{sha256(LAYER)}"


@contextmanager
def _serving(directory: Path, options: Options) -> Iterator[Nginx]:
    with docker_registry(directory / "registry") as registry:
        registry.push("some/image", "latest", IMAGE)
        with nginx(directory / "nginx", registry, options) as running:
            yield running


def _get(running: Nginx, path: str, byte_range: str = "") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(running.address, timeout=20)
    headers = {"Accept": OCI_MANIFEST} | ({"Range": byte_range} if byte_range else {})
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("blobs_from_disk", [False, True])
def test_blobs_ranges_and_manifests_are_those_of_the_registry(tmp_path: Path, blobs_from_disk: bool) -> None:
    with _serving(tmp_path, Options(blobs_from_disk=blobs_from_disk)) as running:
        whole = _get(running, BLOB)
        part = _get(running, BLOB, "bytes=1000-1999")
        manifest = _get(running, "/v2/some/image/manifests/latest")
        absent = _get(running, f"/v2/some/image/blobs/sha256:{'0' * 64}")
        answers = running.drained_answers()

    assert (whole[0], whole[2]) == (200, LAYER)
    assert (part[0], part[1]["Content-Range"], part[2]) == (206, "bytes 1000-1999/1000000", LAYER[1000:2000])
    assert part[1]["Docker-Content-Digest"] == sha256(LAYER)
    assert manifest[2] == IMAGE.manifest.data
    assert absent[0] == 404
    assert b"BLOB_UNKNOWN" in absent[2]
    assert [(each.status, each.range) for each in answers] == [
        (200, ""),
        (206, "bytes=1000-1999"),
        (200, ""),
        (404, ""),
    ]
    assert [each.body for each in answers[:2]] == [1_000_000, 1_000]


@pytest.mark.parametrize("blobs_from_disk", [False, True])
def test_each_connection_has_its_rate_from_the_first_byte(tmp_path: Path, blobs_from_disk: bool) -> None:
    with _serving(tmp_path, Options(limit_rate=2_000_000, blobs_from_disk=blobs_from_disk)) as running:
        started = time.monotonic()
        with ThreadPoolExecutor(3) as pool:
            bodies = list(pool.map(lambda _: _get(running, BLOB)[2], range(3)))
        took = time.monotonic() - started
        answers = running.drained_answers()

    assert bodies == [LAYER] * 3
    assert took >= 0.4  # a burst of a second's worth at the beginning would take no time
    assert answers_at_once(answers) == 3
    assert len({each.connection for each in answers}) == 3


def test_what_a_client_did_not_wait_for_is_not_in_the_log(tmp_path: Path) -> None:
    with _serving(tmp_path, Options(limit_rate=1_000_000)) as running:
        host, _, port = running.address.partition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(f"GET {BLOB} HTTP/1.1\r\nHost: {running.address}\r\n\r\n".encode())
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        (answer,) = running.drained_answers()

    assert 0 < answer.sent < len(LAYER)
    assert answer.request == f"GET {BLOB} HTTP/1.1"


@pytest.mark.parametrize("status", [429, 503])
def test_refusals_say_when_to_come_again(tmp_path: Path, status: int) -> None:
    options = Options(refusals=[Refusal(r"/blobs/", status)], retry_after="7")
    with _serving(tmp_path, options) as running:
        refused, headers, _ = _get(running, BLOB)
        manifest, other_headers, _ = _get(running, "/v2/some/image/manifests/latest")

    assert (refused, headers["Retry-After"]) == (status, "7")
    assert manifest == 200
    assert "Retry-After" not in other_headers


def test_too_many_requests_are_refused(tmp_path: Path) -> None:
    with _serving(tmp_path, Options(requests_per_second=1, retry_after="2")) as running:
        first, second = (_get(running, BLOB, "bytes=0-9") for _ in range(2))

    assert (first[0], second[0], second[1]["Retry-After"]) == (206, 429, "2")


def test_too_many_requests_at_one_time_are_refused(tmp_path: Path) -> None:
    with (
        _serving(tmp_path, Options(most_requests=2, limit_rate=1_000_000, blobs_from_disk=True)) as running,
        ThreadPoolExecutor(4) as pool,
    ):
        statuses = sorted(pool.map(lambda _: _get(running, BLOB)[0], range(4)))

    assert statuses == [200, 200, 429, 429]


def _get_over_tls(running: Nginx, authority: Authority, client: Certificate | None = None) -> int:
    context = ssl.create_default_context(cafile=str(authority.path))
    if client:
        context.load_cert_chain(client.path, client.key)
    host, _, port = running.address.partition(":")
    connection = http.client.HTTPSConnection(host, int(port), timeout=20, context=context)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status
    finally:
        connection.close()


def test_certificates(tmp_path: Path) -> None:
    ours, other = make_authority(tmp_path / "ours"), make_authority(tmp_path / "other")
    with _serving(tmp_path, Options(server=ours.server())) as running:
        assert _get_over_tls(running, ours) == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            _get_over_tls(running, other)


def test_certificates_of_clients(tmp_path: Path) -> None:
    ours, other = make_authority(tmp_path / "ours"), make_authority(tmp_path / "other")
    with _serving(tmp_path, Options(server=ours.server(), clients=ours)) as running:
        assert _get_over_tls(running, ours, ours.client()) == 200
        assert _get_over_tls(running, ours, other.client()) == 400
        assert _get_over_tls(running, ours) == 400
        assert running.drained_answers()
