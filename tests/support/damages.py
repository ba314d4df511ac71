"""Kinds of damage to a store, each done by hand to the files of a sound one."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncpull.store.check.findings import Damage
from tests.support.images import image
from tests.support.samples import base_layer, odd_layer, removing_layer
from tests.support.tars import directory, file, tar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


ODD = image([base_layer(), odd_layer(), removing_layer()], comment="odd")
"""The image that is damaged; its layers are called base, odd and removing."""
PLAIN = image([base_layer(), tar([directory("data"), file("data/x", b"x" * 100)])], comment="plain")
"""An image beside it, on the same base layer."""

NOWHERE = "9" * 64


@dataclass(frozen=True, slots=True)
class Victim:
    """A store with both images, and a container on PLAIN."""

    root: Path
    driver: str = "overlay"

    def records(self, noun: str) -> list[dict[str, Any]]:
        """The records of layers, images or containers."""
        found: list[dict[str, Any]] = json.loads(self.path(noun).read_bytes())
        return found

    def path(self, noun: str) -> Path:
        """The file of the records."""
        return self.root / f"{self.driver}-{noun}" / f"{noun}.json"

    def write(self, noun: str, records: list[dict[str, Any]]) -> None:
        """Replace all records."""
        self.path(noun).write_text(json.dumps(records))

    def change(self, noun: str, record_id: str, **values: Any) -> None:
        """Change keys of one record; ``_`` stands for ``-``."""
        records = self.records(noun)
        for record in records:
            if record["id"] == record_id:
                record.update({key.replace("_", "-"): value for key, value in values.items()})
        self.write(noun, records)

    def forget(self, noun: str, record_id: str) -> None:
        """Drop one record."""
        self.write(noun, [record for record in self.records(noun) if record["id"] != record_id])

    def layer(self, name: str) -> str:
        """The ID of a layer of ODD, or of PLAIN's own."""
        wanted = {
            "base": ODD.diff_ids[0],
            "odd": ODD.diff_ids[1],
            "removing": ODD.diff_ids[2],
            "plain": PLAIN.diff_ids[1],
        }
        return str(next(each["id"] for each in self.records("layers") if each.get("diff-digest") == wanted[name]))

    def home(self, name: str) -> Path:
        """The directory of a layer."""
        return self.root / "overlay" / self.layer(name)

    def file(self, name: str, path: str) -> Path:
        """Something in the tree of a layer."""
        return self.home(name) / "diff" / path

    def tar_split(self, name: str) -> Path:
        """The tar-split of a layer."""
        return self.root / "overlay-layers" / f"{self.layer(name)}.tar-split.gz"

    def item(self, key: str) -> Path:
        """An item of big data of ODD: the file of ``manifest``, or of the config."""
        directory = self.root / "overlay-images" / ODD.id
        others = [path for path in directory.iterdir() if path.name != "manifest"]
        texts = {path: path.read_bytes() for path in others}
        if key == "manifest":
            return directory / "manifest"
        return next(path for path in others if (texts[path] == ODD.config.data) == (key == "config"))


@dataclass(frozen=True, slots=True)
class Case:
    """``do`` damages a store, ``damage`` is what a check calls it.

    ``images`` are those that a repair leaves; ``force``: the container has to go for it. ``is_hopeless``: nothing
    helps. ``is_full``: only seen when content is read.
    """

    do: Callable[[Victim], object]
    damage: Damage
    images: frozenset[str] = frozenset((ODD.id, PLAIN.id))
    force: bool = False
    is_hopeless: bool = False
    is_full: bool = False


_WITHOUT_ODD = frozenset((PLAIN.id,))
_WITHOUT_PLAIN = frozenset((ODD.id,))


def _tree(change: Callable[[Path], object], layer: str, path: str, damage: Damage = Damage.CONTENT_MODIFIED) -> Case:
    """What only the registry can put right, the bytes of a file, costs the image; the rest is made anew."""
    images = _WITHOUT_ODD if path in ("odd/noise", "odd/owned") else frozenset((ODD.id, PLAIN.id))
    return Case(lambda victim: change(victim.file(layer, path)), damage, images, is_full=True)


def _keeping_time(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """Change something so that nobody sees it by a time."""

    def quietly(path: Path) -> None:
        before, above = path.lstat(), path.parent.lstat()
        change(path)
        if os.path.lexists(path):
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns), follow_symlinks=False)
        os.utime(path.parent, ns=(above.st_atime_ns, above.st_mtime_ns))

    return quietly


def _replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        before = path.lstat()
        path.unlink()
        make(path)
        os.chown(path, before.st_uid, before.st_gid, follow_symlinks=False)

    return _keeping_time(replace)


def _node(major: int, minor: int) -> Callable[[Path], None]:
    return lambda path: os.mknod(path, 0o020666, os.makedev(major, minor))


def _own_copy(path: Path) -> None:
    """Make a hard link a file of its own, alike in everything."""
    shutil.copy2(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").rename(path)


def _altered_copy(path: Path) -> None:
    """The same, with other bytes of the same length."""
    times = path.stat().st_mtime_ns
    _own_copy(path)
    path.write_bytes(b"?" * 5000)
    os.utime(path, ns=(times, times))


def _altered_split(victim: Victim) -> None:
    """A few zeros more at the end of the tar."""
    path = victim.tar_split("removing")
    more = json.dumps({"type": 2, "payload": base64.b64encode(bytes(512)).decode(), "position": 99}).encode()
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + more + b"\n"))


def _change_container(victim: Victim, **values: object) -> None:
    victim.change("containers", victim.records("containers")[0]["id"], **values)


CASES: dict[str, Case] = {
    # Records.
    "records-truncated": Case(
        lambda v: v.path("layers").write_bytes(v.path("layers").read_bytes()[:-9]),
        Damage.RECORDS_UNREADABLE,
        is_hopeless=True,
    ),
    "record-of-a-wrong-type": Case(
        lambda v: v.change("images", ODD.id, created=7), Damage.RECORDS_UNREADABLE, is_hopeless=True
    ),
    "parent-not-recorded": Case(lambda v: v.forget("layers", v.layer("odd")), Damage.PARENT_MISSING, _WITHOUT_ODD),
    "layer-recorded-nowhere": Case(
        lambda v: v.change("images", ODD.id, layer=NOWHERE), Damage.IMAGE_LAYER_MISSING, _WITHOUT_ODD
    ),
    "image-of-other-layers": Case(
        lambda v: v.change("images", ODD.id, layer=v.layer("plain")), Damage.IMAGE_LAYERS_WRONG, _WITHOUT_ODD
    ),
    "container-of-no-image": Case(
        lambda v: _change_container(v, image=NOWHERE), Damage.CONTAINER_IMAGE_MISSING, force=True
    ),
    "container-without-layer": Case(
        lambda v: v.forget("layers", v.records("containers")[0]["layer"]), Damage.CONTAINER_LAYER_MISSING, force=True
    ),
    "layer-of-nobody": Case(lambda v: v.forget("images", ODD.id), Damage.LAYER_UNREFERENCED, _WITHOUT_ODD),
    "digest-off": Case(
        lambda v: v.change("layers", v.layer("removing"), diff_digest=f"sha256:{NOWHERE}"),
        Damage.DIFF_DIGEST_WRONG,
        _WITHOUT_ODD,
    ),
    "size-off": Case(
        lambda v: v.change("layers", v.layer("odd"), diff_size=5), Damage.DIFF_SIZE_WRONG, _WITHOUT_ODD, is_full=True
    ),
    # Files that stack layers.
    "tree-missing": Case(lambda v: shutil.rmtree(v.file("odd", "")), Damage.TREE_MISSING, _WITHOUT_ODD),
    "layer-directory-missing": Case(lambda v: shutil.rmtree(v.home("removing")), Damage.TREE_MISSING, _WITHOUT_ODD),
    "tree-of-a-container-missing": Case(
        lambda v: shutil.rmtree(v.home("plain")), Damage.TREE_MISSING, _WITHOUT_PLAIN, force=True
    ),
    "link-missing": Case(lambda v: (v.home("odd") / "link").unlink(), Damage.LINK_MISSING),
    "link-truncated": Case(lambda v: (v.home("base") / "link").write_text("ABC"), Damage.LINK_MISSING),
    "short-name-missing": Case(
        lambda v: (v.root / "overlay/l" / (v.home("odd") / "link").read_text()).unlink(), Damage.SHORT_NAME_MISSING
    ),
    "short-name-elsewhere": Case(lambda v: _lead_elsewhere(v), Damage.SHORT_NAME_MISSING),
    "lower-missing": Case(lambda v: (v.home("removing") / "lower").unlink(), Damage.LOWER_WRONG),
    "lower-truncated": Case(lambda v: os.truncate(v.home("removing") / "lower", 28), Damage.LOWER_WRONG),
    "lower-layers-of-others": Case(
        lambda v: (v.home("removing") / "lower-layers").write_text(v.layer("plain")), Damage.LOWER_WRONG
    ),
    "work-missing": Case(lambda v: (v.home("odd") / "work").rmdir(), Damage.DIRECTORY_MISSING),
    "empty-missing": Case(lambda v: (v.home("base") / "empty").rmdir(), Damage.DIRECTORY_MISSING),
    "stray-tree": Case(lambda v: (v.root / "overlay" / NOWHERE / "diff").mkdir(parents=True), Damage.STRAY_TREE),
    # Archives.
    "tar-split-missing": Case(lambda v: v.tar_split("odd").unlink(), Damage.TAR_SPLIT_MISSING, _WITHOUT_ODD),
    "tar-split-truncated": Case(
        lambda v: os.truncate(v.tar_split("odd"), 300), Damage.TAR_SPLIT_UNREADABLE, _WITHOUT_ODD, is_full=True
    ),
    "tar-split-altered": Case(_altered_split, Damage.DIFF_DIGEST_WRONG, _WITHOUT_ODD, is_full=True),
    # Trees.
    "file-missing": _tree(lambda path: path.unlink(), "odd", "odd/noise", Damage.CONTENT_MISSING),
    "empty-file-missing": _tree(lambda path: path.unlink(), "odd", "odd/empty", Damage.CONTENT_MISSING),
    "file-truncated": _tree(_keeping_time(lambda path: os.truncate(path, 7)), "odd", "odd/noise"),
    "file-altered": _tree(_keeping_time(lambda path: path.write_bytes(b"y" * 5000)), "odd", "odd/owned"),
    "file-too-many": _tree(_keeping_time(lambda path: (path / "new").touch()), "odd", "odd", Damage.CONTENT_UNEXPECTED),
    "owner": _tree(lambda path: os.chown(path, 5, 6), "odd", "odd/empty"),
    "mode": _tree(lambda path: path.chmod(0o600), "odd", "odd/empty"),
    "setuid-lost": _tree(lambda path: path.chmod(0o755), "odd", "odd/setuid"),
    "time": _tree(lambda path: os.utime(path, (1, 1)), "odd", "odd/sticky"),
    "type": _tree(_replaced(lambda path: path.mkdir()), "odd", "odd/empty"),
    "target": _tree(_replaced(lambda path: path.symlink_to("/etc/shadow")), "odd", "odd/absolute"),
    "device": _tree(_replaced(_node(1, 5)), "odd", "odd/null"),
    "attribute-lost": _tree(lambda path: os.removexattr(path, "security.capability"), "odd", "odd/capable"),
    "attribute-more": _tree(lambda path: os.setxattr(path, "user.more", b"1"), "odd", "odd/empty"),
    "content-elsewhere": _tree(lambda path: os.setxattr(path, "trusted.overlay.metacopy", b""), "odd", "odd/setuid"),
    "whiteout-by-attribute": _tree(
        lambda path: os.setxattr(path, "trusted.overlay.whiteout", b"y"), "odd", "odd/empty"
    ),
    "directory-of-another-name": _tree(
        lambda path: os.setxattr(path, "trusted.overlay.redirect", b"/etc"), "odd", "odd/sticky"
    ),
    "hard-link-cut": _tree(_keeping_time(_own_copy), "odd", "odd/link-of-owned"),
    "whiteout-lost": _tree(_keeping_time(lambda path: path.unlink()), "removing", "etc/gone", Damage.CONTENT_MISSING),
    "hard-link-and-its-copy-altered": _tree(_altered_copy, "odd", "odd/link-of-owned"),
    "directory-missing": _tree(_keeping_time(shutil.rmtree), "odd", "odd/marked-directory", Damage.CONTENT_MISSING),
    "opaque-more": _tree(lambda path: os.setxattr(path, "trusted.overlay.opaque", b"y"), "removing", "odd"),
    "opaque-lost": _tree(lambda path: os.removexattr(path, "trusted.overlay.opaque"), "removing", "var/lib/old"),
    # Big data.
    "manifest-missing": Case(lambda v: v.item("manifest").unlink(), Damage.DATA_MISSING),
    "manifest-truncated": Case(lambda v: os.truncate(v.item("manifest"), 9), Damage.DATA_SIZE_WRONG),
    "manifest-altered": Case(
        lambda v: v.item("manifest").write_bytes(ODD.manifest.data.replace(b"2", b"3")), Damage.DATA_DIGEST_WRONG
    ),
    "manifest-not-recorded": Case(
        lambda v: v.change("images", ODD.id, big_data_names=_without_manifest(v)), Damage.MANIFEST_MISSING
    ),
    "config-missing": Case(lambda v: v.item("config").unlink(), Damage.DATA_MISSING, _WITHOUT_ODD),
    "config-altered": Case(
        lambda v: v.item("config").write_bytes(ODD.config.data.replace(b"layer", b"LAYER")),
        Damage.DATA_DIGEST_WRONG,
        _WITHOUT_ODD,
    ),
    "data-size-off": Case(lambda v: v.change("images", ODD.id, big_data_sizes={"manifest": 1}), Damage.DATA_SIZE_WRONG),
}


def _lead_elsewhere(victim: Victim) -> None:
    path = victim.root / "overlay/l" / (victim.home("odd") / "link").read_text()
    path.unlink()
    path.symlink_to(f"../{victim.layer('plain')}/diff")


def _without_manifest(victim: Victim) -> list[str]:
    record = next(each for each in victim.records("images") if each["id"] == ODD.id)
    return [key for key in record["big-data-names"] if key != "manifest"]
