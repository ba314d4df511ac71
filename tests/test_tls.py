"""TLS contexts from files: what is wrong with a file is said with its name."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import ConfigurationError
from asyncpull.tls import TlsFiles, make_context
from tests.support.certificates import Authority, make_authority

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


def test_no_file_is_the_system(tmp_path: Path) -> None:
    verified, unverified = make_context(TlsFiles(), verify=True), make_context(TlsFiles(), verify=False)
    assert (verified.verify_mode, verified.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (unverified.verify_mode, unverified.check_hostname) == (ssl.CERT_NONE, False)


def test_authorities_come_on_top(authority: Authority) -> None:
    def count(files: TlsFiles) -> int:
        return len(make_context(files, verify=True).get_ca_certs())

    assert count(TlsFiles((authority.path,))) == count(TlsFiles()) + 1


def test_client_certificates_are_loaded_with_their_keys(authority: Authority) -> None:
    client = authority.client()
    pair = (client.path, client.key)
    make_context(TlsFiles(clients=(pair,)), verify=True)
    assert TlsFiles((authority.path,), (pair,)).without_clients() == TlsFiles((authority.path,))


def test_what_is_wrong_names_the_file(authority: Authority, tmp_path: Path) -> None:
    good = authority.client("good")
    certificate, key, other_key = good.path, good.key, authority.client("other").key
    nonsense, missing, locked = tmp_path / "nonsense.crt", tmp_path / "missing.crt", tmp_path / "locked.key"
    nonsense.write_text("no certificate")
    command = ["openssl", "ec", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    for files, said in [
        (TlsFiles((nonsense,)), f"{nonsense}: holds no certificates"),
        (TlsFiles((missing,)), f"{missing}: cannot be read: No such file"),
        (TlsFiles((tmp_path,)), f"{tmp_path}: "),
        (TlsFiles(clients=((missing, key),)), f"{missing}: cannot be read"),
        (TlsFiles(clients=((certificate, missing),)), f"{missing}: cannot be read"),
        (TlsFiles(clients=((certificate, other_key),)), f"{other_key}: is not the key of {certificate}"),
        (TlsFiles(clients=((nonsense, key),)), f"{nonsense}, {key}: not a certificate"),
        (TlsFiles(clients=((certificate, locked),)), f"{locked}: the key is encrypted"),
    ]:
        with pytest.raises(ConfigurationError) as caught:
            make_context(files, verify=True)
        assert str(caught.value).startswith(said)
