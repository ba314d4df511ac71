"""The files with which overlay stacks layers: what they are, what they should be, and making them so.

``lower`` and ``lower-layers`` are judged by where they lead, not by their letters. Either may be missing where the
other one, or an older version of containers/storage, does without it: ``lower-layers`` came with 1.64.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.store.check.findings import Damage, Finding, Remedy, Subject
from asyncpull.store.driver.overlay import is_link_name, new_link
from asyncpull.store.files import disk_errors, make_directory, read_if_there, sync_file, write_new
from asyncpull.store.layers import MAX_LAYERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from asyncpull.store.check.inventory import Inventory
    from asyncpull.store.driver import Driver
    from asyncpull.store.views import LayerRecord

_PARTS = ("diff", "work", "merged", "empty")


@dataclass(frozen=True, slots=True)
class StackFiles:
    """The directory of one layer: its three small files, "" for none, and which of its parts are directories."""

    path: Path
    link: str
    lower: str
    lower_layers: str
    parts: frozenset[str]


def read_stack(driver: Driver, layer_ids: Iterable[str]) -> dict[str, StackFiles]:
    """Read the directories of these layers. Raises StoreError."""
    return {layer_id: _read(driver.directory(layer_id)) for layer_id in layer_ids}


def read_short_names(driver: Driver, names: Iterable[str]) -> dict[str, str]:
    """Where the links in ``l`` lead, as text; what is no link leads to "". Raises StoreError."""
    targets = {}
    with disk_errors(driver.homes.main):
        for home, name in itertools.product(driver.homes.own, names):
            try:
                targets[name] = os.readlink(home / "l" / name)
            except FileNotFoundError:
                continue
            except OSError:
                targets[name] = ""
    return targets


def read_lent_names(driver: Driver, inventory: Inventory) -> dict[str, str]:
    """The same for all links of the stores that lend. Raises StoreError."""
    targets: dict[str, str] = {}
    for lent in inventory.lenders:
        links = lent.store.graph_root / driver.name / "l"
        with disk_errors(links):
            targets |= {path.name: os.readlink(path) for path in links.glob("*") if path.is_symlink()}
    return targets


def check_stack(
    inventory: Inventory,
    stack: Mapping[str, StackFiles],
    short_names: Mapping[str, str],
    lent_names: Mapping[str, str],
) -> list[Finding]:
    """What is wrong with the files of overlay's layers, some of which may stand on lent ones; pure.

    ``short_names`` lead to the layers of ``stack``, ``lent_names`` to others that they may stand on.
    """
    found: list[Finding] = []
    # A name that a layer claims counts also where its symbolic link is missing: that is a finding of its own.
    owners = {name: _layer_of(target) for name, target in (*lent_names.items(), *short_names.items())}
    owners |= {files.link: each for each, files in stack.items() if is_link_name(files.link)}
    for layer_id, files in stack.items():
        found += _check_layer(inventory, layer_id, files, short_names, owners)
    claimed = {files.link for files in stack.values()}
    for name, target in sorted(short_names.items()):
        if name not in claimed and _layer_of(target) not in inventory.trees:
            found.append(Finding(Damage.STRAY_SHORT_NAME, Subject.STORE, "", name, "leads to no layer", Remedy.REMOVE))
    return found


def mend_stack(driver: Driver, inventory: Inventory) -> None:
    """Make the files of all layers that have a tree what they should be. Needs layers.lock, exclusively.

    Raises StoreError, NoSpaceError.
    """
    stack = {
        layer_id: files
        for layer_id, files in read_stack(driver, inventory.layers).items()
        if "diff" in files.parts and not inventory.layers[layer_id].is_incomplete
    }
    short_names = read_short_names(driver, inventory.short_names)
    with disk_errors(driver.homes.main):
        links = {layer_id: _mend_link(layer_id, files, short_names) for layer_id, files in stack.items()}
        links |= {layer_id: files.link for layer_id, files in read_stack(driver, inventory.lent).items()}
        owners = {name: layer_id for layer_id, name in links.items()}
        for layer_id, files in stack.items():
            for part in _parts_of(inventory, layer_id):
                make_directory(files.path / part, 0o700)
            below = _below(inventory, layer_id)
            if below is None or not links.keys() >= set(below):
                continue
            if any(_check_lower(layer_id, files, below, owners)):
                _write_lower(files.path, below, links)
        for home in {files.path.parent for files in stack.values()}:
            sync_file(home / "l")


def _read(directory: Path) -> StackFiles:
    with disk_errors(directory):
        link, lower, lower_layers = (
            read_if_there(directory / name).decode("utf-8", "replace") for name in ("link", "lower", "lower-layers")
        )
        parts = frozenset(part for part in _PARTS if (directory / part).is_dir())
    return StackFiles(directory, link, lower, lower_layers, parts)


def _check_layer(
    inventory: Inventory,
    layer_id: str,
    files: StackFiles,
    short_names: Mapping[str, str],
    owners: Mapping[str, str],
) -> Iterator[Finding]:
    if _record(inventory, layer_id).is_incomplete:
        return
    if "diff" not in files.parts:
        yield _finding(Damage.TREE_MISSING, layer_id, files.path / "diff", "its tree is missing", Remedy.REMOVE)
        return
    if not is_link_name(files.link):
        message = "its file link does not name a link"
        yield _finding(Damage.LINK_MISSING, layer_id, files.path / "link", message)
    elif _layer_of(short_names.get(files.link, "")) != layer_id:
        message = f"the link l/{files.link} does not lead to it"
        yield _finding(Damage.SHORT_NAME_MISSING, layer_id, files.path.parent / "l" / files.link, message)
    for part in _parts_of(inventory, layer_id):
        if part not in files.parts:
            message = f"its directory {part} is missing"
            yield _finding(Damage.DIRECTORY_MISSING, layer_id, files.path / part, message)
    below = _below(inventory, layer_id)
    if below is not None:
        yield from _check_lower(layer_id, files, below, owners)
        if len(below) > MAX_LAYERS:
            message = f"it stands on {len(below)} layers, and nobody mounts more than {MAX_LAYERS}"
            yield _finding(Damage.TOO_MANY_LAYERS, layer_id, files.path, message, Remedy.NONE)


def _check_lower(
    layer_id: str, files: StackFiles, below: Sequence[str], owners: Mapping[str, str]
) -> Iterator[Finding]:
    names = [name.removeprefix("l/") for name in files.lower.split(":") if name]
    if [owners.get(name) for name in names] != below:
        message = "its file lower does not name its parents"
        yield _finding(Damage.LOWER_WRONG, layer_id, files.path / "lower", message)
    if files.lower_layers and files.lower_layers.split(":") != below:
        message = "its file lower-layers does not name its parents"
        yield _finding(Damage.LOWER_WRONG, layer_id, files.path / "lower-layers", message)


def _mend_link(layer_id: str, files: StackFiles, short_names: Mapping[str, str]) -> str:
    """Give a layer its name in ``l``: the one it has, or one that leads to it, or else a new one."""
    name, home = files.link, files.path.parent
    if not is_link_name(name):
        leading = [each for each, target in short_names.items() if _layer_of(target) == layer_id]
        name = leading[0] if leading else new_link()
        write_new(files.path / "link", name.encode(), 0o644)
        sync_file(files.path / "link")
    if _layer_of(short_names.get(name, "")) != layer_id:
        (home / "l" / name).unlink(missing_ok=True)
        (home / "l" / name).symlink_to(f"../{layer_id}/diff")
    return name


def _write_lower(directory: Path, below: Sequence[str], links: Mapping[str, str]) -> None:
    contents = {"lower": ":".join(f"l/{links[each]}" for each in below), "lower-layers": ":".join(below)}
    for name, content in contents.items():
        if below:
            write_new(directory / name, content.encode(), 0o644)
            sync_file(directory / name)
        else:
            (directory / name).unlink(missing_ok=True)


def _record(inventory: Inventory, layer_id: str) -> LayerRecord:
    return inventory.layers.get(layer_id) or inventory.lent[layer_id]


def _parts_of(inventory: Inventory, layer_id: str) -> tuple[str, ...]:
    layer = _record(inventory, layer_id)
    stands_on = layer.parent or _template(inventory, layer)
    return ("work", "merged") if stands_on else ("work", "merged", "empty")


def _below(inventory: Inventory, layer_id: str) -> list[str] | None:
    """The layers below one, the nearest first; None if a record is missing."""
    layer = _record(inventory, layer_id)
    below: list[str] = []
    while following := _template(inventory, layer) or layer.parent:
        found = inventory.layer(following)
        if found is None or following in below:
            return None
        below.append(following)
        layer = found
    return below


def _template(inventory: Inventory, layer: LayerRecord) -> str | None:
    """The layer that one with other owners is a copy of, and lies upon: beside it in the records, below it on disk."""
    if not layer.is_id_mapped or not layer.diff_digest:
        return None
    twins = (
        other.id
        for other in (*inventory.layers.values(), *inventory.lent.values())
        if not other.is_id_mapped and (other.diff_digest, other.parent) == (layer.diff_digest, layer.parent)
    )
    return next(twins, None)


def _layer_of(target: str) -> str:
    """The layer that a link in ``l`` leads to, "" if it is none of these links."""
    start, _, rest = target.partition("/")
    layer_id, _, end = rest.partition("/")
    return layer_id if (start, end) == ("..", "diff") else ""


def _finding(damage: Damage, layer_id: str, path: Path, message: str, remedy: Remedy = Remedy.REMAKE) -> Finding:
    return Finding(damage, Subject.LAYER, layer_id, str(path), message, remedy)
