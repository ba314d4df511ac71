"""The demo image, generated: small, but with one of everything that makes layers interesting.

The same tars come out on every run and machine; what gzip and zstd make of them is up to their versions. All files
belong to 0:0, so that a user namespace with a single ID can hold the image. Its layers, the base first:

=============  ============  =====================================================================================
base           gzip          the usual directories, a setuid program, hard links, symlinks, an extended attribute
libraries      zstd          a few large files that do not compress, for the bars to be seen
application    gzip          some hundred files, one in directories that the archive only implies
cleaning       gzip          a whiteout, and an opaque directory that hides what was below
configuration  none          two files, uncompressed
=============  ============  =====================================================================================
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import field
from typing import TYPE_CHECKING, Final

import zstandard

from asyncpull.dataclass import dataclass
from asyncpull.spec import mediatype
from asyncpull.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

REPOSITORY: Final = "asyncpull/demo"
TAG: Final = "latest"

_MOMENT: Final = 1_767_225_600  # 2026-01-01T00:00:00Z, the time of every file
_CREATED: Final = "2026-01-01T00:00:00Z"
_MIB: Final = 1 << 20
_PLATFORMS: Final = (
    ("amd64", ""),
    ("arm64", "v8"),
    ("arm", "v7"),
    ("arm", "v6"),
    ("386", ""),
    ("ppc64le", ""),
    ("riscv64", ""),
    ("s390x", ""),
    ("loong64", ""),
)


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index as a registry sends it."""

    media_type: str
    raw: bytes = field(repr=False)

    @property
    def digest(self) -> Digest:
        """What it is addressed by."""
        return Digest.of(self.raw)


@dataclass(frozen=True, slots=True)
class ServedImage:
    """Everything of one repository: documents by tag and by digest, blobs by digest."""

    repository: str
    tags: Mapping[str, Document]
    documents: Mapping[str, Document]
    blobs: Mapping[str, bytes] = field(repr=False)


def demo_image() -> ServedImage:
    """Generate the image: an index with an instance for every usual architecture, all of the same layers."""
    layers = [_Layer.gzip(_base()), _Layer.zstd(_libraries()), _Layer.gzip(_application()), _Layer.gzip(_cleaning())]
    layers.append(_Layer.plain(_configuration()))
    blobs = {str(Digest.of(layer.blob)): layer.blob for layer in layers}
    documents: dict[str, Document] = {}
    entries = []
    for architecture, variant in _PLATFORMS:
        config = _json(_config(architecture, variant, layers))
        manifest = Document(mediatype.OCI_MANIFEST, _json(_manifest(config, layers)))
        blobs[str(Digest.of(config))] = config
        documents[str(manifest.digest)] = manifest
        platform = {"architecture": architecture, "os": "linux"} | ({"variant": variant} if variant else {})
        entries.append(_descriptor(manifest.media_type, manifest.raw) | {"platform": platform})
    index = Document(
        mediatype.OCI_INDEX, _json({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": entries})
    )
    documents[str(index.digest)] = index
    return ServedImage(REPOSITORY, {TAG: index}, documents, blobs)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer: its tar, and the blob it is served as."""

    media_type: str
    tar: bytes = field(repr=False)
    blob: bytes = field(repr=False)

    @classmethod
    def gzip(cls, tar: bytes) -> _Layer:
        return cls(mediatype.OCI_LAYER_GZIP, tar, gzip.compress(tar, 6, mtime=0))

    @classmethod
    def zstd(cls, tar: bytes) -> _Layer:
        return cls(mediatype.OCI_LAYER_ZSTD, tar, zstandard.ZstdCompressor(level=3).compress(tar))

    @classmethod
    def plain(cls, tar: bytes) -> _Layer:
        return cls(mediatype.OCI_LAYER, tar, tar)


class _Tree:
    """Entries of one tar, in the order they are added."""

    def __init__(self) -> None:
        self._file = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - close() is below

    def directory(self, *names: str, mode: int = 0o755) -> None:
        for name in names:
            self._add(f"{name}/", tarfile.DIRTYPE, mode)

    def file(self, name: str, data: bytes, mode: int = 0o644, xattrs: Mapping[str, str] | None = None) -> None:
        headers = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
        self._add(name, tarfile.REGTYPE, mode, data=data, headers=headers)

    def symlink(self, name: str, target: str) -> None:
        self._add(name, tarfile.SYMTYPE, 0o777, target=target)

    def hard_link(self, name: str, target: str) -> None:
        self._add(name, tarfile.LNKTYPE, 0o755, target=target)

    def whiteout(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        self._add(f"{parent}/.wh.{name}", tarfile.REGTYPE, 0o644)

    def opaque(self, directory: str) -> None:
        self._add(f"{directory}/.wh..wh..opq", tarfile.REGTYPE, 0o644)

    def close(self) -> bytes:
        self._tar.close()
        return self._file.getvalue()

    def _add(
        self,
        name: str,
        kind: bytes,
        mode: int,
        *,
        target: str = "",
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.linkname, entry.size, entry.mtime = kind, mode, target, len(data), _MOMENT
        entry.uname = entry.gname = "root"
        entry.pax_headers = dict(headers or {})
        self._tar.addfile(entry, io.BytesIO(data))


def _base() -> bytes:
    tree = _Tree()
    tree.directory(
        "dev", "etc", "home", "proc", "sys", "usr", "usr/bin", "usr/lib", "usr/share", "usr/share/doc", "var"
    )
    tree.directory("root", mode=0o700)
    tree.directory("tmp", mode=0o1777)
    tree.symlink("bin", "usr/bin")
    tree.symlink("lib", "usr/lib")
    tree.file(
        "etc/os-release", b'NAME="asyncpull demo"\nID=asyncpull-demo\nVERSION_ID=1\nPRETTY_NAME="asyncpull demo 1"\n'
    )
    tree.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    tree.file("etc/shadow", b"root:*:20454:0:99999:7:::\n", mode=0o600)
    tree.file("etc/motd", b"This is the base layer.\n")
    tree.file("usr/bin/compress", _program("compress"), mode=0o755)
    for alias in ("decompress", "recompress"):
        tree.hard_link(f"usr/bin/{alias}", "usr/bin/compress")
    tree.file("usr/bin/become", _program("become"), mode=0o4755)
    tree.file("usr/share/labelled", b"see my attributes\n", xattrs={"user.asyncpull.demo": "kept"})
    tree.file("usr/share/doc/old.txt", b"A later layer removes this.\n")
    tree.file("usr/share/doc/größe.txt", "Names are bytes: größe, 大きさ.\n".encode())
    return tree.close()


def _libraries() -> bytes:
    tree = _Tree()
    tree.directory("usr", "usr/lib")
    for number, size in enumerate((5 * _MIB, 3 * _MIB, 2 * _MIB, _MIB, 100_000), start=1):
        tree.file(f"usr/lib/libdemo{number}.so.{number}", _noise(f"library {number}", size))
        tree.symlink(f"usr/lib/libdemo{number}.so", f"libdemo{number}.so.{number}")
    return tree.close()


def _application() -> bytes:
    tree = _Tree()
    tree.directory("opt", "opt/application", "opt/application/cache", "opt/application/modules")
    tree.file("opt/application/cache/warm", b"hidden by an opaque directory later\n")
    for number in range(300):
        lines = "".join(f"{line} squared is {line * line}\n" for line in range(number % 40))
        data = lines.encode() + _noise(f"module {number}", 9_000)
        tree.file(f"opt/application/modules/module_{number:03}.bin", data)
    tree.file("srv/application/state/seed", b"my parents are implied\n")
    tree.file("etc/motd", b"This is the application layer.\n")
    return tree.close()


def _cleaning() -> bytes:
    tree = _Tree()
    tree.directory("opt", "opt/application", "opt/application/cache", "usr", "usr/share", "usr/share/doc")
    tree.whiteout("usr/share/doc/old.txt")
    tree.opaque("opt/application/cache")
    tree.file("opt/application/cache/fresh", b"the only file here\n")
    return tree.close()


def _configuration() -> bytes:
    tree = _Tree()
    tree.directory("etc", "etc/application")
    tree.file("etc/application/settings.ini", b"[application]\nmodules = /opt/application/modules\n")
    tree.file("etc/motd", b"Pulled by asyncpull, layer by layer.\n")
    return tree.close()


def _program(name: str) -> bytes:
    return f'#!/bin/sh\necho "{name}: there is nothing to run in this image"\n'.encode()


def _noise(seed: str, size: int) -> bytes:
    """Bytes that do not compress, the same on every machine."""
    return hashlib.shake_128(seed.encode()).digest(size)


def _config(architecture: str, variant: str, layers: Iterable[_Layer]) -> dict[str, object]:
    steps = ("base", "libraries", "application", "cleaning", "configuration")
    return {
        "created": _CREATED,
        "author": "asyncpull",
        "architecture": architecture,
        **({"variant": variant} if variant else {}),
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/bin"],
            "Cmd": ["/usr/bin/compress"],
            "WorkingDir": "/opt/application",
            "Labels": {"org.opencontainers.image.title": "asyncpull demo"},
        },
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer.tar)) for layer in layers]},
        "history": [{"created": _CREATED, "created_by": f"asyncpull demo: {step}"} for step in steps],
    }


def _manifest(config: bytes, layers: Iterable[_Layer]) -> dict[str, object]:
    return {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": _descriptor(mediatype.OCI_CONFIG, config),
        "layers": [_descriptor(layer.media_type, layer.blob) for layer in layers],
    }


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
