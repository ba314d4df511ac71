"""Big data of layers, images and containers: presence, size, digest; and whether an image's config fits its layers.

Read without a lock: items are replaced by renaming, and an item that is replaced meanwhile changes its record too.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import orjson

from asyncpull.errors import DocumentError, InvalidDigestError
from asyncpull.spec.digest import Digest
from asyncpull.spec.schema1 import document_digest
from asyncpull.store.check.findings import Damage, Finding, Remedy, Subject
from asyncpull.store.records import big_data_file_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from asyncpull.store.check.inventory import Inventory
    from asyncpull.store.views import ContainerRecord, ImageRecord, LayerRecord

# An item is a document of an image, or what a container program keeps: all of them are read whole by everybody.
_LARGEST = 256 << 20


def check_layer_data(directory: Path, layer: LayerRecord) -> Iterator[Finding]:
    """The items of a layer can be read; neither size nor digest of them is recorded."""
    for key in layer.big_data_names:
        path = item_path(directory, layer.id, key)
        if read_item(path) is None:
            message = f"its data {key} cannot be read"
            yield Finding(Damage.DATA_MISSING, Subject.LAYER, layer.id, str(path), message, Remedy.REMOVE)


def check_image_data(directory: Path, image: ImageRecord, inventory: Inventory) -> Iterator[Finding]:
    """The items of an image are what its record says, and its config is that of its layers."""
    items: dict[str, bytes] = {}
    for key in image.big_data_names:
        path = item_path(directory, image.id, key)
        data = read_item(path)
        if data is not None:
            items[key] = data
        wrong = _compare(key, data, image.big_data_sizes, image.big_data_digests)
        if wrong is not None:
            damage, message = wrong
            remedy = Remedy.REMAKE if genuine_item(directory, image, key) is not None else Remedy.REMOVE
            yield Finding(damage, Subject.IMAGE, image.id, str(path), message, remedy)
    if "manifest" not in image.big_data_names:
        message = "it has no manifest, without which other programs cannot list any image"
        remedy = Remedy.REMAKE if genuine_item(directory, image, "manifest") is not None else Remedy.REMOVE
        yield Finding(Damage.MANIFEST_MISSING, Subject.IMAGE, image.id, "", message, remedy)
    config = items.get(f"sha256:{image.id}")
    if config is not None and not _fits(config, image, inventory):
        message = "its config names other diff IDs than its layers have"
        yield Finding(Damage.IMAGE_LAYERS_WRONG, Subject.IMAGE, image.id, "", message, Remedy.REMOVE)


def check_container_data(directory: Path, container: ContainerRecord) -> Iterator[Finding]:
    """The items of a container are what its record says."""
    for key in container.big_data_names:
        path = item_path(directory, container.id, key)
        wrong = _compare(key, read_item(path), container.big_data_sizes, container.big_data_digests)
        if wrong is not None:
            damage, message = wrong
            yield Finding(damage, Subject.CONTAINER, container.id, str(path), message, Remedy.FORCE)


def item_path(directory: Path, record_id: str, key: str) -> Path:
    """The file of an item; for a key that no file can have, one that is not there."""
    try:
        return directory / record_id / big_data_file_name(key)
    except ValueError:
        return directory / record_id / "=" / "="


def read_item(path: Path) -> bytes | None:
    """The bytes of an item, None if there are none to be had."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            return file.read(_LARGEST)
    except OSError:
        return None


def genuine_item(directory: Path, image: ImageRecord, key: str) -> bytes | None:
    """The bytes that an item should have, from any item of the image that has them; None if none does.

    Only what its digest vouches for is genuine.
    """
    wanted = image.big_data_digests.get(key, "")
    if key == "manifest" and not wanted:
        wanted = next((digest for each, digest in image.big_data_digests.items() if _is_instance(each, digest)), "")
    if not wanted:
        return None
    for each in dict.fromkeys((key, *image.big_data_names)):
        data = read_item(item_path(directory, image.id, each))
        if data is not None and _has_digest(data, wanted):
            return data
    return None


def _is_instance(key: str, digest: str) -> bool:
    return bool(digest) and key == f"manifest-{digest}"


def _compare(
    key: str, data: bytes | None, sizes: Mapping[str, int], digests: Mapping[str, str]
) -> tuple[Damage, str] | None:
    if data is None:
        return Damage.DATA_MISSING, f"its data {key} cannot be read"
    size, digest = sizes.get(key), digests.get(key, "")
    if size is not None and size != len(data):
        return Damage.DATA_SIZE_WRONG, f"its data {key} has {len(data)} bytes, and {size} are recorded"
    if digest and not _has_digest(data, digest):
        return Damage.DATA_DIGEST_WRONG, f"its data {key} is not what its digest says"
    return None


def _has_digest(data: bytes, text: str) -> bool:
    try:
        digest = Digest.parse(text)
    except InvalidDigestError:
        return False
    if Digest.of(data, digest.algorithm) == digest:
        return True
    with suppress(DocumentError):  # Docker's first manifests were signed inside
        return document_digest(data, digest.algorithm) == digest
    return False


def _fits(config: bytes, image: ImageRecord, inventory: Inventory) -> bool:
    """Whether the diff IDs of a config are those of the layers, as far as both are known."""
    try:
        document = orjson.loads(config)
        wanted = document["rootfs"]["diff_ids"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return True
    chain = list(inventory.chain(image.layer))
    if not isinstance(wanted, list) or (chain[-1].parent if chain else image.layer):
        return True  # there are no layers to compare; what is missing is a finding of its own
    actual = [layer.diff_digest for layer in chain][::-1]
    return len(actual) == len(wanted) and all(mine in ("", theirs) for mine, theirs in zip(actual, wanted, strict=True))
