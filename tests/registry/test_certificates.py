"""certs.d: which files belong to which registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpull.errors import ConfigurationError
from asyncpull.registry.certificates import CertificateDirectory, Certificates
from asyncpull.registry.config import RegistryAccess, load_registries
from asyncpull.spec.reference import parse_reference
from asyncpull.tls import TlsFiles

HERE = Path("/certs.d/a.example")


@pytest.mark.parametrize(
    ("names", "authorities", "clients"),
    [
        ((), (), ()),
        (("ca.crt",), ("ca.crt",), ()),
        (("a.crt", "b.crt"), ("a.crt", "b.crt"), ()),
        (("c.cert", "c.key"), (), (("c.cert", "c.key"),)),
        (("a.cert", "a.key", "b.cert", "b.key", "ca.crt"), ("ca.crt",), (("a.cert", "a.key"), ("b.cert", "b.key"))),
        (("ca.pem", "README", "cert", "key", "crt", "x.crt.old"), (), ()),
    ],
)
def test_files_by_their_ending(names: tuple[str, ...], authorities: tuple[str, ...], clients: tuple[object]) -> None:
    files = CertificateDirectory(HERE, names).tls_files()
    assert tuple(path.name for path in files.authorities) == authorities
    assert tuple(tuple(path.name for path in pair) for pair in files.clients) == clients
    assert {path.parent for path in (*files.authorities, *(path for pair in files.clients for path in pair))} <= {HERE}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("ca.crt", "c.cert"), "/certs.d/a.example: c.cert has no c.key"),
        (("ca.crt", "c.key"), "/certs.d/a.example: c.key has no c.cert"),
        (("c.key", "d.cert"), "/certs.d/a.example: c.key has no c.cert"),
    ],
)
def test_half_a_pair_is_refused(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        CertificateDirectory(HERE, names).tls_files()
    assert str(caught.value) == said


def make(directory: Path, *names: str) -> Path:
    directory.mkdir(parents=True)
    for name in names:
        (directory / name).touch()
    return directory


def test_the_first_directory_that_has_a_registry_counts(tmp_path: Path) -> None:
    user, system = tmp_path / "user", tmp_path / "system"
    make(user / "a.example", "user.crt")
    make(system / "a.example", "system.crt")
    make(system / "a.example:5000", "port.crt")
    make(system / "b.example", "lonely.key")
    certificates = Certificates.read((user, tmp_path / "none", system))
    assert certificates.for_registry("a.example") == TlsFiles((user / "a.example/user.crt",))
    assert certificates.for_registry("a.example:5000") == TlsFiles((system / "a.example:5000/port.crt",))
    assert certificates.for_registry("a.example:443") == TlsFiles()
    # What is wrong with one registry is none of the others' business.
    with pytest.raises(ConfigurationError):
        certificates.for_registry("b.example")


async def test_each_endpoint_has_its_own(tmp_path: Path) -> None:
    user = tmp_path / ".config/containers"
    hub = make(user / "certs.d/docker.io", "hub.crt")
    mirror = make(user / "certs.d/m.example:5000", "c.cert", "c.key")
    conf = user / "registries.conf"
    conf.write_text('[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "m.example:5000"')
    alone = make(tmp_path / "alone", "alone.crt")
    environ = {"HOME": str(tmp_path)}
    registries = await load_registries(RegistryAccess(), environ, 0)
    assert [each.tls for each in registries.endpoints(parse_reference("alpine"))] == [
        TlsFiles(clients=((mirror / "c.cert", mirror / "c.key"),)),
        TlsFiles((hub / "hub.crt",)),
    ]
    registries = await load_registries(RegistryAccess(cert_dir=alone), environ, 0)
    assert [each.tls for each in registries.endpoints(parse_reference("alpine"))] == [
        TlsFiles((alone / "alone.crt",))
    ] * 2
