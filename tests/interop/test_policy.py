"""Policies: the library in Go refuses the same files, and finds the same rules for the same images."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import ConfigurationError
from asyncpull.spec.location import parse_location
from asyncpull.trust.policy import AcceptAnything, Policy
from asyncpull.trust.scopes import scopes_of
from tests.support import images, tars
from tests.support.policies import ACCEPT, BAD, GOOD, REJECT, policy
from tests.support.stores import workplace
from tests.support.transports import GIVEN, Yard

BY_PATH = ("oci", "oci-archive", "dir")

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.docker_registry import Registry
    from tests.support.peers import Peer


@pytest.fixture
def folder(newest: Peer) -> Iterator[Path]:
    with workplace(newest) as directory:
        yield directory


@pytest.fixture
def layout(folder: Path) -> Path:
    directory = folder / "layout"
    images.write_layout(directory, {"1": images.image([tars.tar([tars.file("f", b"x")])])})
    return directory


def judged(newest: Peer, folder: Path, policies: Sequence[str], source: str, *options: str) -> list[str]:
    """What skopeo says when it copies ``source`` under each of ``policies``; nothing where it does."""
    for number, text in enumerate(policies):
        (folder / f"{number}.json").write_text(text)
    script = (
        f'cd "$1"; for n in $(seq 0 {len(policies) - 1}); do'
        f' if said=$(skopeo --policy $n.json copy -q --src-tls-verify=false {shlex.join(options)} "$2" dir:out 2>&1);'
        ' then echo; else echo "$said" | tail -n 1; fi; rm -rf out; done'
    )
    return newest.run("sh", "-c", script, "sh", folder, source).splitlines()


def verdict_of(text: str, location: str, image_id: str = "") -> str:
    """What a policy that accepts one scope comes to for ``location``: accepted, rejected, or invalid."""
    try:
        rule = Policy.from_bytes(Path("policy.json"), text.encode()).rule_for(
            scopes_of(parse_location(location), image_id=image_id)
        )
    except ConfigurationError:
        return "invalid"
    return "accepted" if rule.requirements == (AcceptAnything(),) else "rejected"


def verdict_in(said: str) -> str:
    """The same in the words of skopeo; what it says besides is given back."""
    known = {"invalid policy": "invalid", "rejected by policy": "rejected"}
    return next((verdict for part, verdict in known.items() if part in said), said or "accepted")


def test_the_scopes_of_every_transport(yard: Yard) -> None:
    image = images.image([tars.tar([tars.file("f", b"x")])], comment="scopes")
    path = yard.directory
    store, named = f"{path}/containers-storage-scoped/root", "localhost/yard/scoped"
    of_paths = ["{path}", "{path}:1", "{path}/x", str(path), str(path.parent), "/opt", "/", "{path}/", "x", ""]
    of_names = [f"{named}:1", named, "localhost/yard", "localhost", f"{named}:2", "localhost/yar", "*.localhost", ""]
    scopes = {
        **{transport: [each.format(path=path / f"{transport}-scoped") for each in of_paths] for transport in BY_PATH},
        "docker": [],  # in a test of its own
        "docker-archive": ["", f"{path}/docker-archive-archived", f"{named}:1"],
        "docker-daemon": [*of_names, image.config.digest],
        "tarball": ["", f"{path}/tarball-scoped/0.tar"],
        "containers-storage": [
            *(f"[overlay@{store}]{name}" for name in of_names),
            *(f"[{store}]", f"[vfs@{store}]", f"[overlay@{path}]", f"[{store}]{named}", f"[{path}]", "", named),
            *(f"[overlay@{store}]{named}:1@{image.id}", f"[overlay@{store}]@{image.id}"),
        ],
    }
    assert scopes.keys() == GIVEN.keys()
    for transport, candidates in scopes.items():
        # That for the daemon makes an archive for itself, of the same name.
        location = yard.offer(transport, "archived" if transport == "docker-archive" else "scoped", image)
        policies = [policy(REJECT, **{transport: {scope: [ACCEPT]}}) for scope in candidates]
        daemon = (f"--src-daemon-host={yard.daemon}",) if transport == "docker-daemon" else ()
        said = judged(yard.peer, path, policies, location, *daemon)
        theirs = [verdict_in(line) for line in said]
        ours = [verdict_of(text, location, image.id) for text in policies]
        assert dict(zip(candidates, ours, strict=True)) == dict(zip(candidates, theirs, strict=True)), transport
        assert not candidates or "accepted" in ours


def test_the_same_files_are_refused(newest: Peer, folder: Path, layout: Path) -> None:
    said = judged(newest, folder, [*GOOD, *BAD], f"oci:{layout}:1")
    refused = ["invalid policy" in line for line in said]
    assert [text for text, is_refused in zip([*GOOD, *BAD], refused, strict=True) if is_refused] == BAD


def test_the_same_rules_count(newest: Peer, folder: Path, layout: Path, registry: Registry) -> None:
    image = images.image([tars.tar([tars.file("f", b"x")])])
    name = registry.push("scoped/image", "1", image)
    host, port = registry.address.split(":")
    scopes = {
        "docker": [
            name,
            f"{registry.address}/scoped/image",
            f"{registry.address}/scoped",
            registry.address,
            host,
            f"{registry.address}/scoped/imag",
            "*.0.0.1",
            "*.0.1",
            "*.1",
            f"*.0.0.1:{port}",
            f"{registry.address}/scoped/image@{image.manifest.digest}",
            "",
        ],
        "oci": [str(layout), str(folder), str(folder.parent), f"{layout}/x", f"{layout}:1", "/opt", ""],
    }
    (folder / "link").symlink_to(layout)
    sources = {
        "docker": [f"docker://{name}", f"docker://{registry.address}/scoped/image@{image.manifest.digest}"],
        "oci": [f"oci:{layout}:1", f"oci:{folder}/link:1", f"oci:{os.path.relpath(layout, folder)}:1"],
    }
    for transport, locations in sources.items():
        policies = [policy(REJECT, **{transport: {scope: [ACCEPT]}}) for scope in scopes[transport]]
        for source in locations:
            theirs = [line == "" for line in judged(newest, folder, policies, source)]
            found = scopes_of(parse_location(source.replace("oci:layout", f"oci:{layout}")))
            rules = [Policy.from_bytes(folder, text.encode()).rule_for(found) for text in policies]
            assert [rule.requirements == (AcceptAnything(),) for rule in rules] == theirs
            assert any(theirs)
            assert not all(theirs)
