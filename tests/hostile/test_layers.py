"""Every attack of tests/support/hostile_layers.py through a whole pull: from a registry into a real store.

By root, into overlay and into complete trees; by the root of a user namespace; and by an ordinary user in one of their
own. A program that runs as that user (tests/support/hostile_pulls.py) pulls one attack after another; each is judged
here by itself. However it ends: the store is what it was, nobody outside was touched, and no worker needed more memory
than the largest image would.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command import PROJECT
from tests.support.hostile_layers import ATTACKS, BASE, Attack, Made, Refused
from tests.support.hostile_pulls import differences, outside_of
from tests.support.images import image
from tests.support.ordinary_user import UID, OrdinaryUser
from tests.support.registry_simulator import RegistrySimulator
from tests.support.user_namespace import FIRST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Outcome = Mapping[str, object]
    Ended = subprocess.CompletedProcess[str]

pytestmark = pytest.mark.root

MEMORY_KIB = 300 << 10
"""What a worker may need, whatever the layer: the largest window of zstd, and as much for the rest."""
SECONDS = 240


def by_root(place: Path, *arguments: str) -> Ended:
    return subprocess.run(
        [sys.executable, "-m", "tests.support.hostile_pulls", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(place), "PYTHONPATH": str(PROJECT)},
        cwd=place,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def by_root_of_a_namespace(place: Path, *arguments: str) -> Ended:
    user = OrdinaryUser(place)
    give_to(place, FIRST)
    command = (sys.executable, "-m", "tests.support.user_namespace", user.python, "-m", "tests.support.hostile_pulls")
    return user.run_as_root(*command, *arguments)


def by_an_ordinary_user(place: Path, *arguments: str) -> Ended:
    user = OrdinaryUser(place, f"{UID}:200000:65536\n")
    give_to(place, UID)
    return user.asyncpull("unshare", user.python, "-m", "tests.support.hostile_pulls", *arguments)


def give_to(place: Path, uid: int) -> None:
    """Let somebody own it all, so that nothing would be in the way of doing harm."""
    for above, directories, files in os.walk(place):
        for name in (".", *directories, *files):
            os.chown(os.path.join(above, name), uid, uid, follow_symlinks=False)


@dataclass(frozen=True, slots=True)
class Attacked:
    """Who is attacked: how programs are run in their name, and what store they have."""

    run: Callable[..., Ended]
    driver: str = "overlay"
    has_devices: bool = True


ATTACKED: Mapping[str, Attacked] = {
    "root": Attacked(by_root),
    "root, complete trees": Attacked(by_root, "vfs"),
    "root of a namespace": Attacked(by_root_of_a_namespace, has_devices=False),
    "an ordinary user": Attacked(by_an_ordinary_user, has_devices=False),
}


def make_outside(place: Path) -> Path:
    """What all attacks aim at, of every kind that could be changed, linked to, followed or read."""
    outside = place / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "victim").write_text("untouched")
    (outside / "program").write_text("#!/bin/sh")
    (outside / "program").chmod(0o4755)
    (outside / "link").symlink_to("victim")
    os.mkfifo(outside / "fifo")
    os.setxattr(outside / "victim", "user.mine", b"mine")
    os.utime(outside / "victim", ns=(5, 5))
    return outside


@dataclass(slots=True)
class Campaign:
    """All attacks on one of those who are attacked: ``outcomes`` by name, or a reason why there are none."""

    attacked: Attacked
    outside: Path
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    skipped: str = ""


async def attack_all(who: Attacked, place: Path, attacks: Sequence[Attack]) -> Campaign:
    """Attack somebody in a directory of their own."""
    place.mkdir(mode=0o755)
    campaign = Campaign(who, make_outside(place))
    async with RegistrySimulator() as registry:
        registry.add_image("attack/base", "1", image([BASE]))
        for number, attack in enumerate(attacks):
            registry.add_image(f"attack/n{number}", "1", attack.image(str(campaign.outside)))
        arguments = [str(place / "store"), who.driver, registry.address, str(campaign.outside)]
        try:
            ended = await asyncio.to_thread(who.run, place, *arguments)
        except pytest.skip.Exception as reason:
            campaign.skipped = str(reason)
            return campaign
    assert (ended.returncode, ended.stderr) == (0, "")
    campaign.outcomes = {found["name"]: found for found in map(json.loads, ended.stdout.splitlines())}
    return campaign


@pytest.fixture(scope="module")
def campaigns() -> Iterator[Mapping[str, Campaign]]:
    """All of them side by side: most of the time each waits for the disk."""

    async def attack_everybody(place: Path) -> list[Campaign]:
        started = enumerate(ATTACKED.values())
        return await asyncio.gather(*(attack_all(who, place / f"n{number}", ATTACKS) for number, who in started))

    with tempfile.TemporaryDirectory(prefix="h-") as directory:
        os.chmod(directory, 0o755)
        yield dict(zip(ATTACKED, asyncio.run(attack_everybody(Path(directory))), strict=True))


@pytest.mark.parametrize(
    "attack", ATTACKS, ids=lambda attack: f"{attack.name} ({attack.known})" if attack.known else attack.name
)
@pytest.mark.parametrize("who", ATTACKED)
def test_attack(campaigns: Mapping[str, Campaign], who: str, attack: Attack) -> None:
    if campaigns[who].skipped:
        pytest.skip(campaigns[who].skipped)
    judge(campaigns[who], attack)


def judge(campaign: Campaign, attack: Attack) -> None:
    """Hold what came of an attack against how it has to end."""
    outcome = campaign.outcomes[attack.name]
    is_whole = campaign.attacked.driver == "vfs"
    ends = attack.whole if is_whole and attack.whole is not None else attack.ends
    if isinstance(ends, Refused):
        assert (outcome.get("error"), outcome.get("code")) == (ends.error, 65), outcome
        assert ends.says in str(outcome["says"])
    else:
        assert "error" not in outcome, outcome
        assert outcome["findings"] == []
        compare(outcome["tree"], wanted(ends, campaign), is_whole=is_whole)
    assert outcome["changed"] == []
    assert outcome["touched"] == []
    assert isinstance(outcome["peak"], int)
    assert 0 < outcome["peak"] < MEMORY_KIB


def wanted(ends: Made, campaign: Campaign) -> dict[str, str]:
    tree = ends.tree if campaign.attacked.has_devices or ends.without_devices is None else ends.without_devices
    outside = str(campaign.outside)
    return {
        path.replace("{outside}", outside.lstrip("/")): kind.replace("{outside}", outside)
        for path, kind in tree.items()
    }


def compare(tree: object, expected: Mapping[str, str], *, is_whole: bool) -> None:
    """Hold a tree against what an attack comes to; sizes of files only where that says one."""
    assert isinstance(tree, dict)
    found = {
        path: "file" if kind.startswith("file") and not expected.get(path, "file").startswith("file of") else kind
        for path, kind in tree.items()
        if kind != "directory" or path in expected
    }
    if not is_whole:  # in which there are the layers below as well, and nothing in place of what is deleted
        assert found == expected
        return
    for path, kind in expected.items():
        assert found.get(path) == (None if kind == "whiteout" else kind)


def test_the_outside_can_be_seen_to_be_touched(tmp_path: Path) -> None:
    """A canary that never sings would prove nothing."""
    outside = make_outside(tmp_path)
    for harm in (
        lambda: os.chmod(outside / "sub", 0o700),
        lambda: os.utime(outside / "victim", ns=(5, 6)),
        lambda: (outside / "new").touch(),
        lambda: os.link(outside / "victim", tmp_path / "h"),
        lambda: os.setxattr(outside / "program", "user.x", b"x"),
        lambda: (outside / "victim").write_text("touched??"),
        lambda: (outside / "link").unlink(),
    ):
        before = outside_of(outside)
        assert differences(before, outside_of(outside)) == []
        harm()
        assert differences(before, outside_of(outside)) != []
