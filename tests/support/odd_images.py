"""Documents and blobs that are allowed and seldom: sha512, nothing in a blob, indexes in indexes, unknown fields.

Nothing of asyncpull is used here.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.support import images, tars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Read = Callable[[str], bytes | None]

_EMPTY = "application/vnd.oci.empty.v1+json"
_GZIP, _PLAIN = "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True, slots=True)
class Part:
    """Something with a digest; a manifest or an index has the ``parts`` that it lists."""

    media_type: str
    data: bytes = field(repr=False)
    algorithm: str = "sha256"
    parts: tuple[Part, ...] = ()

    @property
    def digest(self) -> str:
        return f"{self.algorithm}:{hashlib.new(self.algorithm, self.data).hexdigest()}"

    def descriptor(self, **more: object) -> dict[str, object]:
        """What a document says of it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data), **more}

    @property
    def is_document(self) -> bool:
        """Whether it is a manifest or an index."""
        return self.media_type in (images.OCI_MANIFEST, images.OCI_INDEX, images.DOCKER_MANIFEST, images.DOCKER_LIST)

    def all(self) -> Iterator[Part]:
        """This and everything below it."""
        yield self
        for part in self.parts:
            yield from part.all()


def manifest(config: Part, layers: Sequence[Part], **more: object) -> Part:
    """An OCI manifest, with ``more`` keys."""
    document = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "config": config.descriptor(),
        "layers": [layer.descriptor() for layer in layers],
        **more,
    }
    return Part(images.OCI_MANIFEST, json.dumps(document).encode(), parts=(config, *layers))


def index(parts: Sequence[Part], platforms: Sequence[Mapping[str, str]] = (), **more: object) -> Part:
    """An OCI index, with ``more`` keys; ``platforms`` are those of the first parts."""
    said = [{"platform": dict(each)} for each in platforms] + [{}] * len(parts)
    listed = [part.descriptor(**extra) for part, extra in zip(parts, said, strict=False)]
    document = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": listed, **more}
    return Part(images.OCI_INDEX, json.dumps(document).encode(), parts=tuple(parts))


def layer(name: str, algorithm: str = "sha256") -> Part:
    """A compressed layer with one file."""
    return Part(_GZIP, images.compress(tars.tar([tars.file(name, name.encode())]), "gzip"), algorithm)


def config(layers: Sequence[bytes], algorithm: str = "sha256", **more: object) -> Part:
    """The config of an image with those tars."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [images.sha256(tar) for tar in layers]},
        **more,
    }
    return Part(images.OCI_CONFIG, json.dumps(document).encode(), algorithm)


def image(name: str, algorithm: str = "sha256", **more: object) -> Part:
    """An image of one layer; ``more`` goes into its manifest."""
    tar = tars.tar([tars.file(name, name.encode())])
    return manifest(config([tar], algorithm), [layer(name, algorithm)], **more)


def artifact(name: str, subject: Part | None = None) -> Part:
    """Something that is no image, about ``subject``."""
    more = {} if subject is None else {"subject": subject.descriptor()}
    note = Part("application/vnd.example.note", name.encode())
    return manifest(Part(_EMPTY, b"{}"), [note], artifactType="application/vnd.example.note", **more)


AMD64, ARM64 = {"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64"}

ODD: dict[str, Part] = {
    "sha512": image("long", "sha512"),
    "an index with sha512": index([image("long", "sha512"), image("short")], [AMD64, ARM64]),
    "an empty blob": manifest(Part(_EMPTY, b"{}"), [Part("text/plain", b"")], artifactType="text/plain"),
    "an index in an index": index([index([image("one"), image("two")], [AMD64, ARM64]), image("three")], [{}, AMD64]),
    "no layers": manifest(config([]), []),
    "an index of nothing": index([]),
    "an artifact": artifact("note", image("subject")),
    "an image and what is about it": index([image("subject"), artifact("note", image("subject"))], [AMD64]),
    "unknown fields": image("known", unknown={"deep": [1, 2.50, None, "\u00fc"]}, annotations={"a": "b"}),
    "an index with unknown fields": index([image("known")], [AMD64], unknown=[{"x": 1e3}], annotations={"a": "b"}),
    "layers without a byte": manifest(config([b"", b""]), [Part(_PLAIN, b""), Part(_PLAIN, b"")]),
    "a layer twice": manifest(config([tars.tar([])] * 2), [Part(_PLAIN, tars.tar([]))] * 2),
    "a manifest twice": index([image("same"), image("same")], [AMD64, ARM64]),
    "other spaces": Part(
        images.OCI_MANIFEST, image("spaced").data.replace(b", ", b"\n ,\t") + b"\n", parts=image("spaced").parts
    ),
}

ODD["all of them"] = index([part for name, part in ODD.items() if name != "an index in an index"])  # not three deep


def write_layout(directory: Path, name: str, target: Part) -> None:
    """Write an image layout with one image."""
    directory.mkdir()
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    for part in target.all():
        algorithm, _, encoded = part.digest.partition(":")
        (directory / "blobs" / algorithm).mkdir(parents=True, exist_ok=True)
        (directory / "blobs" / algorithm / encoded).write_bytes(part.data)
    listed = target.descriptor(annotations={"org.opencontainers.image.ref.name": name})
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [listed]}))


def assert_holds(location: str, target: Part) -> None:
    """Every byte of ``target`` is at a location, read as its transport has it."""
    transport, _, rest = location.partition(":")
    top, read = _READERS[transport](rest)
    assert top == target.data
    for part in target.all():
        assert read(part.digest) == part.data, part
    _assert_lists(transport, rest, target)


def _assert_lists(transport: str, rest: str, target: Part) -> None:
    """What knows its top document by a digest has it under that of ``target``."""
    if transport == "oci":
        (listed,) = json.loads((_path(rest) / "index.json").read_bytes())["manifests"]
        assert (listed["digest"], listed["size"]) == (target.digest, len(target.data))


def _path(rest: str) -> Path:
    return Path(rest.partition(":")[0])


def _layout(rest: str) -> tuple[bytes, Read]:
    def read(digest: str) -> bytes | None:
        path = _path(rest) / "blobs" / digest.replace(":", "/")
        return path.read_bytes() if path.exists() else None

    (listed,) = json.loads((_path(rest) / "index.json").read_bytes())["manifests"]
    return read(listed["digest"]) or b"", read


def _archive(rest: str) -> tuple[bytes, Read]:
    with tarfile.open(_path(rest)) as archive:
        held = {member.name: archive.extractfile(member) for member in archive}
        files = {name: content.read() for name, content in held.items() if content is not None}

    def read(digest: str) -> bytes | None:
        return files.get(f"blobs/{digest.replace(':', '/')}")

    (listed,) = json.loads(files["index.json"])["manifests"]
    return read(listed["digest"]) or b"", read


def _directory(rest: str) -> tuple[bytes, Read]:
    top = (_path(rest) / "manifest.json").read_bytes()

    def read(digest: str) -> bytes | None:
        algorithm, _, encoded = digest.partition(":")
        if hashlib.new(algorithm, top).hexdigest() == encoded:
            return top
        name = encoded if algorithm == "sha256" else f"{algorithm}-{encoded}"
        found = [path for path in (_path(rest) / name, _path(rest) / f"{name}.manifest.json") if path.exists()]
        return found[0].read_bytes() if found else None

    return top, read


def _registry(rest: str) -> tuple[bytes, Read]:
    host, _, path = rest.removeprefix("//").partition("/")
    repository, _, tag = path.partition(":")
    accepted = ", ".join((images.OCI_MANIFEST, images.OCI_INDEX, images.DOCKER_MANIFEST, images.DOCKER_LIST))

    def get(kind: str, name: str) -> bytes | None:
        request = Request(f"http://{host}/v2/{repository}/{kind}/{name}", headers={"Accept": accepted})
        try:
            with urlopen(request, timeout=60) as response:
                data: bytes = response.read()
                return data
        except HTTPError as error:
            if error.code != 404:
                raise
            return None

    def read(digest: str) -> bytes | None:
        blob = get("blobs", digest)
        return get("manifests", digest) if blob is None else blob

    return get("manifests", tag) or b"", read


_READERS: dict[str, Callable[[str], tuple[bytes, Read]]] = {
    "docker": _registry,
    "oci": _layout,
    "oci-archive": _archive,
    "dir": _directory,
}
