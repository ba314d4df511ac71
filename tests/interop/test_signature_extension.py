"""The registry's own place for signatures, as OpenShift has it: skopeo reads and writes there as we do.

No registry at hand has the extension, so that the simulated one answers for it: by what skopeo asks of it.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

from tests.support import images, tars
from tests.support.command import Command
from tests.support.policies import REJECT, policy
from tests.support.registry_faults import header, status
from tests.support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.support.peers import Peer
    from tests.support.signers import Gpg

IMAGE = images.image([tars.tar([tars.file("f", b"x")])], comment="extension")


async def test_skopeo_and_we_read_and_write_the_same(
    debian: Peer, gpg: Gpg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(gpg.home))
    mine = gpg.make_key("mine@a.example")
    (tmp_path / "mine.gpg").write_bytes(gpg.export("mine@a.example"))
    key = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": f"{tmp_path}/mine.gpg"}
    (tmp_path / "policy.json").write_text(policy(REJECT, docker={"": [key]}))
    images.write_layout(tmp_path / "layout", {"1": IMAGE})
    command = Command(tmp_path)
    path = f"/extensions/v2/a/b/signatures/{IMAGE.manifest.digest}"
    layout = f"oci:{tmp_path}/layout:1"
    async with RegistrySimulator() as registry:
        place = f"docker://{registry.address}/a/b:1"
        registry.on("/v2/", header("X-Registry-Supports-Signatures", "1"), times=None)
        registry.on(path, status(200, b'{"signatures": []}'), times=None)
        registry.on(path, status(201), times=None, method="PUT")
        sign = ("--sign-by", mine, layout, place)
        await asyncio.to_thread(
            debian.run, "skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", *sign
        )
        quiet = ("--tls-verify=false", "--progress", "none")
        ended = await asyncio.to_thread(command, *quiet, "--insecure-policy", "copy", *sign)
        assert (ended.code, ended.err) == (0, "")
        theirs, ours = [json.loads(each.body) for each in registry.asked(path) if each.method == "PUT"]
        assert theirs.keys() == ours.keys()
        for sent in (theirs, ours):
            assert (sent["schemaVersion"], sent["type"]) == (2, "atomic")
            manifest, at, number = sent["name"].partition("@")
            assert (manifest, at, len(number)) == (IMAGE.manifest.digest, "@", 32)
            assert base64.b64decode(sent["content"])

        for sent, is_good in ((theirs, True), (ours, True), (None, False)):
            listed = {"signatures": [] if sent is None else [sent]}
            registry.on(path, status(200, json.dumps(listed).encode()), times=None)
            words = ("skopeo", "--policy", f"{tmp_path}/policy.json", "copy", "-q", "--src-tls-verify=false")
            await asyncio.to_thread(
                debian.run, *words, place, f"dir:{tmp_path}/{len(registry.asked(''))}", expect=0 if is_good else 1
            )
            strict = ("--policy", f"{tmp_path}/policy.json", "pull", place.removeprefix("docker://"))
            ended = await asyncio.to_thread(command, *quiet, *strict)
            assert ended.code == (0 if is_good else 65), ended
