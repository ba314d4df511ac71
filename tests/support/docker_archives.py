"""Archives as ``docker save`` writes them, in the layouts that are out there; nothing of asyncpull is used here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.images import sha256
from tests.support.tars import Entry, directory, file, symlink, tar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.images import Image


def saved(images: Mapping[str, Image]) -> list[Entry]:
    """The members that podman, skopeo and old dockers write, by tag; layers as they are in the images."""
    members: dict[str, Entry] = {}
    listed: list[dict[str, object]] = []
    for tag, image in images.items():
        names = [f"{sha256(blob.data).removeprefix('sha256:')}.tar" for blob in image.layers]
        members |= {name: file(name, blob.data) for name, blob in zip(names, image.layers, strict=True)}
        config = f"{image.id}.json"
        members[config] = file(config, image.config.data)
        listed.append({"Config": config, "RepoTags": [tag] if tag else None, "Layers": names})
    return [*members.values(), _list(listed)]


def saved_with_links(image: Image) -> list[Entry]:
    """As dockers before 25 write it: a directory per layer; a layer that was there before is a link to it."""
    entries, names = [file(f"{image.id}.json", image.config.data)], []
    first: dict[bytes, str] = {}
    for number, blob in enumerate(image.layers):
        name = f"{number:064x}"
        entries += [directory(f"{name}/"), file(f"{name}/VERSION", b"1.0"), file(f"{name}/json", b"{}")]
        if blob.data in first:
            entries.append(symlink(f"{name}/layer.tar", f"../{first[blob.data]}/layer.tar"))
        else:
            entries.append(file(f"{name}/layer.tar", blob.data))
        first.setdefault(blob.data, name)
        names.append(f"{name}/layer.tar")
    return [*entries, _list([{"Config": f"{image.id}.json", "RepoTags": ["one:v1"], "Layers": names}])]


def saved_as_layout(image: Image) -> list[Entry]:
    """As dockers since 25 write it: an image layout, and beside it the list that says where in there things are."""
    names = [f"blobs/sha256/{blob.digest.removeprefix('sha256:')}" for blob in image.blobs]
    members = {name: file(name, blob.data) for name, blob in zip(names, image.blobs, strict=True)}
    manifest = f"blobs/sha256/{image.manifest.digest.removeprefix('sha256:')}"
    return [
        directory("blobs/"),
        directory("blobs/sha256/"),
        *members.values(),
        file(manifest, image.manifest.data),
        file("index.json", json.dumps({"schemaVersion": 2, "manifests": [image.manifest.descriptor()]}).encode()),
        file("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
        _list([{"Config": names[0], "RepoTags": ["one:v1"], "Layers": names[1:], "LayerSources": {}}]),
    ]


def archive(images: Mapping[str, Image]) -> bytes:
    """The tar of ``saved``."""
    return tar(saved(images))


def _list(items: list[dict[str, object]]) -> Entry:
    return file("manifest.json", json.dumps(items).encode())
