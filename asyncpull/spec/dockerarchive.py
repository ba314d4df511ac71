"""What ``docker save`` writes: which members of such an archive an image is made of, and how they are called.

An archive holds several images. ``manifest.json`` lists them: the member with the config of each, those with its layers
(the base layer first), and its tags. The layers are tars, which some tools compress all the same: umoci, and dockerd
since it keeps images in containerd. The image has no manifest of its own in there; one is made that names each layer by
its diff ID. It is the one that containers/image makes, but for the media type of the layers: there it is that of
compressed ones, which they are not, so that whoever copies the image would have to look at them to know.

What is written has the members that containers/image writes, also those of the first format: a directory per layer, in
which ``layer.tar`` is a link, and ``repositories``, by which a tag leads to the directory of the topmost layer.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import orjson

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError, InvalidReferenceError, NotFoundError, UsageError
from asyncpull.spec import mediatype
from asyncpull.spec.digest import Digest
from asyncpull.spec.fields import Fields
from asyncpull.spec.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncpull.spec.reference import Reference

MANIFEST: Final = "manifest.json"
REPOSITORIES: Final = "repositories"
MANIFEST_LIMIT: Final = 1 << 20
"""The size that containers/image allows the list of images, in bytes."""

# What the first format copies from the config of an image to the topmost layer.
_COPIED: Final = ("architecture", "config", "container", "container_config", "created", "docker_version", "os")
_VERSION: Final = b"1.0"


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image of an archive: the names of the members with its config and its layers, and its tags as written."""

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...] = ()

    def is_tagged(self, reference: Reference) -> bool:
        """Whether it has that tag; what is no tag at all is passed over."""
        return any(_normalised(tag) == str(reference) for tag in self.tags)


@dataclass(frozen=True, slots=True)
class LegacyLayer:
    """A layer in the first format: the members of the directory ``id``, but for its link to the layer's ``member``."""

    id: str
    member: str
    config: bytes

    @property
    def files(self) -> tuple[tuple[str, bytes], ...]:
        """Names and contents of its files, in the order in which they are written."""
        return (f"{self.id}/VERSION", _VERSION), (f"{self.id}/json", self.config)

    @property
    def link(self) -> tuple[str, str]:
        """Name and target of its link."""
        return f"{self.id}/layer.tar", f"../{self.member}"


def parse_images(raw: bytes, where: str) -> tuple[ArchivedImage, ...]:
    """Parse ``manifest.json`` of the archive ``where``. Raises DocumentError."""
    try:
        items = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise DocumentError(f"{where}: {MANIFEST} is not JSON: {error}") from error
    if not isinstance(items, list) or not items:
        raise DocumentError(f"{where}: {MANIFEST} is no list of images")
    return tuple(_image(Fields.of(item, f"{where}: {MANIFEST}[{number}]")) for number, item in enumerate(items))


def choose_image(
    images: Sequence[ArchivedImage], reference: Reference | None, number: int | None, where: str
) -> ArchivedImage:
    """The image with that tag, or at that ``number`` counted from zero, or the only one there is.

    Raises NotFoundError, and UsageError where there are several and none is named.
    """
    if reference is not None:
        for image in images:
            if image.is_tagged(reference):
                return image
        raise NotFoundError(f"{where}: no image in it is tagged {reference}", _told(images))
    if number is not None:
        if number >= len(images):
            raise NotFoundError(f"{where}: has no image @{number}: there are {len(images)}, counted from 0")
        return images[number]
    if len(images) > 1:
        raise UsageError(f"{where}: holds {len(images)} images; name one by :TAG or :@NUMBER", _told(images))
    return images[0]


def made_manifest(config: bytes, layers: Iterable[tuple[Digest, int]]) -> bytes:
    """The manifest of an image that came without one, of its config and the diff IDs and sizes of its layers."""
    return orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatype.DOCKER_MANIFEST,
            "config": {
                "mediaType": mediatype.DOCKER_CONFIG,
                "size": len(config),
                "digest": str(Digest.of(config)),
            },
            "layers": [
                {"mediaType": mediatype.DOCKER_LAYER, "size": size, "digest": str(digest)} for digest, size in layers
            ],
        }
    )


def config_member(digest: Digest) -> str:
    """The name of the member for a config."""
    return f"{digest.encoded}.json"


def layer_member(digest: Digest) -> str:
    """The name of the member for an uncompressed layer. It is in no directory: each of those is taken for a layer."""
    return f"{digest.encoded}.tar"


def format_images(images: Iterable[ArchivedImage]) -> bytes:
    """``manifest.json``."""
    return _json(
        [{"Config": image.config, "RepoTags": list(image.tags), "Layers": list(image.layers)} for image in images]
    )


def format_repositories(tops: Mapping[Reference, str]) -> bytes:
    """``repositories``: the IDs of topmost layers by the names that they have."""
    repositories: dict[str, dict[str, str]] = {}
    for reference, top in sorted(tops.items(), key=lambda item: str(item[0])):
        repositories.setdefault(reference.name, {})[reference.tag or ""] = top
    return _json(repositories)


def legacy_layers(config: bytes, diff_ids: Sequence[Digest]) -> tuple[LegacyLayer, ...]:
    """The layers of an image in the first format, the base layer first. Raises DocumentError.

    Their IDs are what containers/image gives them: any will do that are unique and do not lead in a circle.
    """
    layers: list[LegacyLayer] = []
    chain: Digest | None = None
    for number, diff_id in enumerate(diff_ids):
        entry: dict[str, object] = {"parent": layers[-1].id} if layers else {}
        if number == len(diff_ids) - 1:
            values = Fields.from_bytes(config, "image config").values
            entry |= {key: values.get(key) for key in _COPIED}
        chain = diff_id if chain is None else Digest.of(f"{chain} {diff_id}".encode())
        id_ = Digest.of(_json(entry | {"layer_id": str(chain)}, is_sorted=True)).encoded
        layers.append(LegacyLayer(id_, layer_member(diff_id), _json(entry | {"id": id_}, is_sorted=True)))
    return tuple(layers)


def _image(fields: Fields) -> ArchivedImage:
    layers: list[str] = []
    for item, where in fields.array("Layers"):
        if not isinstance(item, str):
            raise DocumentError(f"{where} is not a string")
        layers.append(item)
    return ArchivedImage(fields.get("Config", str), tuple(layers), fields.texts("RepoTags"))


def _normalised(tag: str) -> str | None:
    try:
        return str(parse_reference(tag))
    except InvalidReferenceError:
        return None


def _told(images: Sequence[ArchivedImage]) -> str:
    return "there are " + ", ".join(" ".join((f"@{number}", *image.tags)) for number, image in enumerate(images))[:1000]


def _json(value: object, *, is_sorted: bool = False) -> bytes:
    """As Go writes JSON: a few characters that matter in HTML are escaped. Only the outermost keys are sorted."""
    if is_sorted and isinstance(value, dict):
        value = {key: value[key] for key in sorted(value)}
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError as error:
        raise DocumentError("image config is nested too deeply to be copied") from error
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()
