"""What cosign signs is accepted by us, and it finds what we sign and take along."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import images, tars
from tests.support.command import Command
from tests.support.policies import REJECT, policy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.docker_registry import Registry

OFFLINE = ("--use-signing-config=false", "--tlog-upload=false", "-y")


class Cosign:
    """cosign with a home and a key of its own, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "HOME": str(folder), "COSIGN_PASSWORD": "open sesame"}
        (folder / "passphrase").write_text("open sesame\n")
        self.run("generate-key-pair")

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = ["cosign", *map(str, arguments)]
        return subprocess.run(
            command, env=self._environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=120
        )

    def sign(self, image: str, *options: str) -> None:
        key = ("--key", self.folder / "cosign.key", "--allow-http-registry", "--allow-insecure-registry")
        done = self.run("sign", *key, *OFFLINE, *options, image)
        assert done.returncode == 0, done

    def finds(self, image: str, *options: str) -> bool:
        key = ("--key", self.folder / "cosign.pub", "--allow-http-registry", "--allow-insecure-registry")
        return self.run("verify", *key, "--insecure-ignore-tlog=true", *options, image).returncode == 0


@pytest.fixture
def cosign(tmp_path: Path) -> Cosign:
    if shutil.which("cosign") is None:
        pytest.skip("cosign is not installed")
    return Cosign(tmp_path)


@pytest.mark.parametrize("form", ["bundle", "attachment"])
def test_in_both_directions(cosign: Cosign, registry: Registry, tmp_path: Path, form: str) -> None:
    (tmp_path / "registries.d").mkdir()
    section = {"lookaside": f"file://{tmp_path}/lookaside", "use-sigstore-attachments": True}
    (tmp_path / "registries.d/test.yaml").write_text(json.dumps({"docker": {registry.address: section}}))
    requirement = {"type": "sigstoreSigned", "keyPath": f"{tmp_path}/cosign.pub"}
    elsewhere = requirement | {"signedIdentity": {"type": "matchRepository"}}
    image = images.image([tars.tar([tars.file("f", b"x")])], comment=f"cosign, {form}")
    name = registry.push(f"cosigned/{form}", "1", image)
    registry.push(f"cosigned/{form}", "2", image)
    command = Command(tmp_path)
    quiet = ("--tls-verify=false", "--progress", "none", "--registries.d", f"{tmp_path}/registries.d")

    def pulled(reference: str, wanted: Mapping[str, object]) -> tuple[int, str]:
        (tmp_path / "policy.json").write_text(policy(REJECT, docker={"": [wanted]}))
        ended = command(*quiet, "--policy", f"{tmp_path}/policy.json", "pull", reference)
        return ended.code, ended.err

    assert pulled(name, requirement)[0] == 65
    by_digest = f"{name.rpartition(':')[0]}@{image.manifest.digest}"
    if form == "bundle":
        cosign.sign(by_digest)
        code, said = pulled(name, elsewhere)
        assert (code, "for the name ''" in said) == (65, True)
        cosign.sign(by_digest, "-a", f"docker-reference={name}")
        of_form: tuple[str, ...] = ()
    else:
        of_form = ("--new-bundle-format=false",)
        cosign.sign(by_digest, *of_form, "--sign-container-identity", name)
    assert pulled(name, requirement) == (0, "")
    code, said = pulled(f"{name[:-1]}2", requirement)
    assert (code, f"for the name '{name}'" in said) == (65, True)
    assert pulled(f"{name[:-1]}2", elsewhere) == (0, "")

    # Taken along by a copy, and found there.
    goal = f"{registry.address}/cosigned/{form}-copied"
    ended = command(*quiet, "--insecure-policy", "copy", f"docker://{name}", f"docker://{goal}:1")
    assert (ended.code, ended.err) == (0, "")
    assert cosign.finds(f"{goal}@{image.manifest.digest}", *of_form)
    # Signed by us with cosign's key.
    ours = images.image([tars.tar([tars.file("f", b"x")])], comment=f"ours, {form}")
    name = registry.push(f"cosigned/{form}-ours", "1", ours)
    key = ("--sign-by-sigstore-private-key", f"{tmp_path}/cosign.key")
    secret = ("--sign-passphrase-file", f"{tmp_path}/passphrase")
    assert not cosign.finds(name, "--new-bundle-format=false")
    ended = command(*quiet, "--insecure-policy", "copy", *key, *secret, f"docker://{name}", f"docker://{name}")
    assert (ended.code, ended.err) == (0, "")
    assert cosign.finds(name, "--new-bundle-format=false")
