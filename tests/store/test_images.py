"""Finding images as podman finds them, naming them, and their big data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import InvalidReferenceError, NotInStoreError, StoreError
from asyncpull.store.images import find_image, own_name
from asyncpull.store.records import IMAGES, parse_records
from asyncpull.store.table import Rows
from asyncpull.store.views import ImageRecord
from tests.store.made import GOLDEN, commit_image

if TYPE_CHECKING:
    from asyncpull.store.config import StoreConfig
    from asyncpull.store.store import Store

BASE = {"etc/a": b"a"}
INDEX = "sha256:" + "1" * 64
MANIFEST = "sha256:" + "2" * 64
OTHER = "sha256:" + "3" * 64


def image(first: str, *names: str, digests: dict[str, str] | None = None) -> ImageRecord:
    raw = {"id": (first + "0" * 64)[:64], "names": list(names), "big-data-digests": digests or {}}
    return ImageRecord.from_raw({**raw, "created": "2026-01-01T00:00:00Z"})


def rows(*images: ImageRecord) -> Rows[ImageRecord]:
    return Rows((), (), {record.id: record for record in images})


STORE = rows(
    image("aaa1", "docker.io/library/alpine:latest", "docker.io/library/alpine:3.20"),
    image(
        "aaa2", "localhost/app:latest", digests={"manifest": MANIFEST, f"manifest-{INDEX}": INDEX, "sha256:x": OTHER}
    ),
    image("bbb1", "docker.io/library/app:latest"),
    image("ccc1", "quay.io/org/team/tool:v1", "registry.example:5000/x/other:latest"),
    image("ddd1", f"quay.io/org/pinned@{MANIFEST}", digests={"manifest": MANIFEST}),
    image("eee1"),
    image("fff1", "quay.io/one/same:1"),
    image("fff2", "quay.io/two/same:1"),
)


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("aaa1" + "0" * 60, "aaa1"),
        ("sha256:aaa1" + "0" * 60, "aaa1"),
        ("docker.io/library/alpine:3.20", "aaa1"),
        ("alpine:3.20", "aaa1"),
        ("alpine", "aaa1"),
        ("library/alpine", "aaa1"),
        ("docker.io/alpine", "aaa1"),
        ("app", "aaa2"),  # localhost comes before docker.io
        ("localhost/app", "aaa2"),
        ("docker.io/app", "bbb1"),
        (f"app@{MANIFEST}", "aaa2"),
        (f"localhost/app@{INDEX}", "aaa2"),
        (f"localhost/app:whatever@{MANIFEST}", "aaa2"),
        ("aaa2", "aaa2"),
        ("b", "bbb1"),
        ("tool:v1", "ccc1"),
        ("team/tool:v1", "ccc1"),
        ("other", "ccc1"),
        ("registry.example:5000/x/other", "ccc1"),
        (f"quay.io/org/pinned@{MANIFEST}", "ddd1"),
        (f"pinned@{MANIFEST}", "ddd1"),
        ("eee", "eee1"),
        ("one/same:1", "fff1"),
    ],
)
def test_found(target: str, found: str) -> None:
    record = find_image(STORE, target)
    assert record is not None
    assert record.id.startswith(found)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "nothing",
        "alpine:3.21",
        "ool:v1",
        "tool",
        f"localhost/app@{OTHER}",  # the digest of no manifest
        f"localhost/other@{MANIFEST}",
        "Not/A/Reference",
        "a" * 64,
    ],
)
def test_not_found(target: str) -> None:
    assert find_image(STORE, target) is None


@pytest.mark.parametrize("target", ["aaa", "same:1"])
def test_ambiguous(target: str) -> None:
    with pytest.raises(StoreError, match="several"):
        find_image(STORE, target)


def test_the_own_name_that_is_meant() -> None:
    (record,) = (found for found in STORE.by_id.values() if found.id.startswith("aaa1"))
    assert own_name(record, "alpine") == "docker.io/library/alpine:latest"
    assert own_name(record, "docker.io/library/alpine:3.20") == "docker.io/library/alpine:3.20"
    assert own_name(record, "aaa1") is None
    (record,) = (found for found in STORE.by_id.values() if found.id.startswith("ccc1"))
    assert own_name(record, "tool:v1") == "quay.io/org/team/tool:v1"


def test_what_podman_recorded() -> None:
    (raw,) = parse_records((GOLDEN / "images.json").read_bytes(), IMAGES, "x")
    record = ImageRecord.from_raw(raw)
    assert record.digests == {record.digest}
    assert record.created_at.year == 2023
    assert find_image(rows(record), "img1") is record


def test_an_image_without_a_manifest_has_no_digest_of_one() -> None:
    assert image("aaa1").digests == frozenset()


async def test_naming(store: Store) -> None:
    first = await commit_image(store, "localhost/one:1", BASE)
    second = await commit_image(store, "localhost/two:1", BASE, remark="2")
    named = await store.tag(first, "busy")
    assert named.names == ("docker.io/library/busy:latest", "localhost/one:1")
    taken = await store.tag("two:1", "busy")
    assert taken.names == ("docker.io/library/busy:latest", "localhost/two:1")
    assert (await store.image(first.id)).names == ("localhost/one:1",)
    left = await store.untag(second, "localhost/two:1")
    assert left.names == ("docker.io/library/busy:latest",)
    assert left.names_history == ("docker.io/library/busy:latest", "localhost/two:1")
    with pytest.raises(NotInStoreError, match="localhost/one"):
        await store.untag(second, "localhost/one:1")
    with pytest.raises(InvalidReferenceError):
        await store.tag(first, "Upper/Case")
    with pytest.raises(NotInStoreError):
        await store.tag("nothing", "name")


async def test_big_data(store: Store, config: StoreConfig) -> None:
    record = await commit_image(store, "localhost/one:1", BASE)
    assert (await store.big_data(record, f"sha256:{record.id}")).startswith(b"{")
    with pytest.raises(NotInStoreError, match="signatures"):
        await store.big_data(record, "signatures")
    (config.graph_root / f"overlay-images/{record.id}/manifest").unlink()
    with pytest.raises(StoreError, match="manifest"):
        await store.big_data(record, "manifest")
