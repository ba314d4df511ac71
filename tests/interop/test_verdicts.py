"""Requirements of every kind (``tests/support/verdicts.py``): skopeo accepts what we accept, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import images, tars
from tests.support.stores import workplace
from tests.support.verdicts import Cases

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.docker_registry import Registry
    from tests.support.peers import Peer


@pytest.fixture
def folder(newest: Peer) -> Iterator[Path]:
    with workplace(newest) as directory:
        yield directory


def test_skopeo_comes_to_the_same(newest: Peer, registry: Registry, folder: Path) -> None:
    image = images.image([tars.tar([tars.file("f", b"x")])], comment="verdicts")
    cases = Cases(folder, registry.address, image.manifest.digest).all()
    for case in cases:
        registry.push(f"verdicts/{case.name}", "1", image)
    script = (
        'cd "$1"; shift; for image in "$@"; do'
        " if skopeo --policy policy.json --registries.d registries.d copy -q --src-tls-verify=false"
        ' --remove-signatures "docker://$image" dir:out >/dev/null 2>&1; then echo yes; else echo no; fi;'
        " rm -rf out; done"
    )
    names = [f"{registry.address}/verdicts/{case.name}:1" for case in cases]
    said = newest.run("sh", "-c", script, "sh", folder, *names).split()
    theirs = {case.name: answer == "yes" for case, answer in zip(cases, said, strict=True)}
    assert theirs == {case.name: case.reason is None for case in cases}
