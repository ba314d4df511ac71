"""Targets: references, digests and the documents of images."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.copying.plan import parse_selection
from asyncpull.errors import (
    DocumentError,
    InvalidDigestError,
    InvalidReferenceError,
    NoMatchingPlatformError,
    NotFoundError,
    UsageError,
)
from asyncpull.registry.referrers import entry_of, parse_referrers, subject_of, with_entry, without_entry
from asyncpull.spec import directory, dockerarchive, layout, mediatype
from asyncpull.spec.conversion import convert_index, convert_manifest, missing_variants
from asyncpull.spec.derivation import Provenance, derive_config
from asyncpull.spec.digest import Digest
from asyncpull.spec.instruction import apply_instructions, parse_instruction
from asyncpull.spec.layout import LayoutIndex
from asyncpull.spec.location import RegistryLocation, parse_location
from asyncpull.spec.manifest import ImageConfig, Index, Manifest, is_schema1, parse_document
from asyncpull.spec.platform import Platform, parse_platform, select_platform
from asyncpull.spec.reference import parse_reference
from asyncpull.spec.schema1 import LayerFacts, convert_schema1, document_digest, parse_schema1, verify_document
from asyncpull.spec.semver import Version, VersionRange
from asyncpull.spec.signature import SigstoreSignature, signature_from_file, signature_to_file
from asyncpull.spec.source import SourceDocument
from asyncpull.trust.scopes import scopes_of
from tests.fuzz.target import Target, halves, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

GOLDEN = Path(__file__).parents[1] / "spec" / "golden"
HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"
LINUX = Platform("linux", "amd64")

_KINDS = (
    mediatype.OCI_MANIFEST,
    mediatype.OCI_INDEX,
    mediatype.DOCKER_MANIFEST,
    mediatype.DOCKER_LIST,
    None,
    "text/plain; charset=utf-8",
)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _entry(media_type: str, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": DIGEST, "size": 7, **more}


MANIFEST = _json(
    {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": _entry(mediatype.OCI_CONFIG),
        "layers": [_entry(mediatype.OCI_LAYER_GZIP, annotations={"a": "b"}, urls=["https://a.example/b"])],
        "subject": _entry(mediatype.OCI_MANIFEST),
        "annotations": {"c": "d"},
        "artifactType": "application/x",
    }
)
DOCKER_MANIFEST = _json(
    {
        "schemaVersion": 2,
        "mediaType": mediatype.DOCKER_MANIFEST,
        "config": _entry(mediatype.DOCKER_CONFIG),
        "layers": [_entry(mediatype.DOCKER_LAYER_GZIP)],
    }
)
INDEX = _json(
    {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_INDEX,
        "manifests": [
            _entry(
                mediatype.OCI_MANIFEST,
                platform={"os": "linux", "architecture": "amd64", "variant": "v2", "os.features": ["x"]},
                annotations={
                    "org.opencontainers.image.ref.name": "v1",
                    "io.github.containers.compression.zstd": "true",
                },
            ),
            _entry(mediatype.OCI_MANIFEST, artifactType="application/x"),
        ],
    }
)
LIST = _json(
    {
        "schemaVersion": 2,
        "mediaType": mediatype.DOCKER_LIST,
        "manifests": [_entry(mediatype.DOCKER_MANIFEST, platform={"os": "linux", "architecture": "arm64"})],
    }
)
CONFIG = _json(
    {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-02T03:04:05.678Z",
        "config": {"Env": ["A=b"], "Cmd": ["sh"], "Labels": {"a": "b"}, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
        "history": [{"created_by": "x"}, {"empty_layer": True}],
    }
)
_JSON_WORDS = (b'"":', b"[[[[", b"{}", b"null", b"-1", b"1e999", b"\\ud800", b"true", b"18446744073709551616")
_DOCUMENT_WORDS = (
    *_JSON_WORDS,
    *(each.encode() for each in (DIGEST, *(kind for kind in _KINDS if kind), mediatype.OCI_LAYER_ZSTD)),
    *(f'"{key}"'.encode() for key in ("schemaVersion", "mediaType", "config", "layers", "manifests", "annotations")),
    *(f'"{key}"'.encode() for key in ("digest", "size", "platform", "urls", "subject", "artifactType", "data")),
)


def _reference(data: bytes) -> None:
    reference = parse_reference(text_of(data))
    assert parse_reference(str(reference)) == reference
    assert parse_reference(reference.familiar) == reference
    assert parse_reference(reference.store_name).name == reference.name
    assert reference.tag or reference.digest


def _location(data: bytes) -> None:
    location = parse_location(text_of(data))
    assert parse_location(str(location)) == location
    scopes = scopes_of(location, driver="overlay", graph_root="/graph")
    assert isinstance(location, RegistryLocation) <= bool(scopes.scopes)


def _digest(data: bytes) -> None:
    text = text_of(data)
    assert str(Digest.parse(text)) == text


def _platform(data: bytes) -> None:
    parsed = parse_platform(text_of(data))
    assert parse_platform(str(parsed)) == parsed


def _selection(data: bytes) -> None:
    parse_selection(text_of(data[1:]), is_stripped=data[:1] == b"s")


def _document(data: bytes) -> None:
    media_type, raw = _KINDS[data[0] % len(_KINDS)] if data else None, data[1:]
    with suppress(DocumentError):
        is_schema1(raw, media_type)
    document = parse_document(raw, media_type, with_artifacts=True)
    assert document.raw == raw
    assert document.digest == Digest.of(raw)
    with suppress(DocumentError):
        assert parse_document(raw, media_type) == document
    if isinstance(document, Index):
        _index(document)
    else:
        _manifest(document)


def _manifest(document: Manifest) -> None:
    assert all(each.size >= 0 for each in (document.config, *document.layers))
    for target in (mediatype.OCI_MANIFEST, mediatype.DOCKER_MANIFEST):
        with suppress(DocumentError):
            converted = convert_manifest(document, target)
            assert [each.digest for each in converted.layers] == [each.digest for each in document.layers]
            assert convert_manifest(converted, target) is converted
    assert convert_manifest(document) is document


def _index(document: Index) -> None:
    with suppress(NoMatchingPlatformError):
        assert select_platform(document.manifests, LINUX) in document.manifests
    missing_variants(document, ("gzip", "zstd"))
    for target in (mediatype.OCI_INDEX, mediatype.DOCKER_LIST):
        with suppress(DocumentError):
            converted = convert_index(document, target)
            assert [each.digest for each in converted.manifests] == [each.digest for each in document.manifests]
    with suppress(DocumentError):
        convert_index(document, added=document.manifests[:1])


def _config(data: bytes) -> None:
    config = ImageConfig.from_bytes(data)
    assert config.raw == data
    derived = derive_config(data, LINUX, config.diff_ids, Provenance("2024-01-02T03:04:05Z", "by"))
    assert ImageConfig.from_bytes(derived).diff_ids == config.diff_ids
    layers = dockerarchive.legacy_layers(data, config.diff_ids)
    assert len(layers) == len(config.diff_ids)


def _schema1(data: bytes) -> None:
    expected = document_digest(data)
    verify_document("manifest", data, expected)
    manifest = parse_schema1(data)
    assert manifest.raw == data
    assert manifest.digest == expected
    facts = {blob: LayerFacts(7, Digest.of(str(blob).encode())) for blob in manifest.blobs}
    converted = convert_schema1(manifest, facts)
    document = parse_document(converted.manifest)
    assert isinstance(document, Manifest)
    assert document.config.digest == Digest.of(converted.config)
    assert len(ImageConfig.from_bytes(converted.config).diff_ids) == len(document.layers)


def _layout(data: bytes) -> None:
    name, raw = halves(data)
    index = LayoutIndex.from_bytes(raw, "index.json")
    wanted = text_of(name) or None
    for chosen in ((wanted, None), (None, len(name) % 5), (None, None)):
        with suppress(NotFoundError, UsageError, DocumentError):
            index.choose(*chosen)
    assert len(set(index.names)) == len(index.names)
    if wanted is not None and wanted.isprintable():
        added = LayoutIndex.from_bytes(index.with_image(wanted, mediatype.OCI_MANIFEST, Digest.parse(DIGEST), 7), "")
        assert added.choose(wanted, None).digest == Digest.parse(DIGEST)
    for entry in index.entries[:1]:
        assert len(LayoutIndex.from_bytes(index.without(entry), "").entries) == len(index.entries) - 1


def _layout_version(data: bytes) -> None:
    layout.check_version(data, "oci-layout")


def _directory_version(data: bytes) -> None:
    directory.check_version(data, "version")


def _saved(data: bytes) -> None:
    tag, raw = halves(data)
    images = dockerarchive.parse_images(raw, "archive")
    assert dockerarchive.parse_images(dockerarchive.format_images(images), "archive") == images
    with suppress(InvalidReferenceError, NotFoundError, UsageError):
        dockerarchive.choose_image(images, parse_reference(text_of(tag)) if tag else None, None, "archive")


def _signature(data: bytes) -> None:
    signature = signature_from_file(data, "signature")
    if isinstance(signature, SigstoreSignature):
        assert signature_from_file(signature_to_file(signature), "signature") == signature


def _semver(data: bytes) -> None:
    tag, range_ = map(text_of, halves(data))
    version = Version.parse(tag)
    if version is not None:
        assert version.key <= version.key
    VersionRange.parse(range_).allows(tag)


def _instruction(data: bytes) -> None:
    instruction = parse_instruction(text_of(data))
    settings: dict[str, object] = {"Env": ["A=b"], "Cmd": ["sh"]}
    apply_instructions(settings, [instruction])
    assert parse_instruction(f"{instruction.name}={instruction.text}") == instruction


def _referrers(data: bytes) -> None:
    with suppress(DocumentError):
        subject_of(data)
    with suppress(DocumentError):
        entry = entry_of(SourceDocument(data, mediatype.OCI_MANIFEST, Digest.of(data)))
        made = with_entry(None, entry)
        assert made is not None
        assert [each.descriptor.digest for each in parse_referrers(made, None)] == [Digest.of(data)]
    found = parse_referrers(data, mediatype.OCI_INDEX)
    digest = Digest.of(b"something else")
    more = with_entry(data, {"mediaType": mediatype.OCI_MANIFEST, "digest": str(digest), "size": 1})
    if more is not None:
        assert len(parse_referrers(more, None)) == len(found) + 1
        less = without_entry(more, digest)
        assert less is not None
        assert parse_referrers(less, None) == found


def _documents(*raws: bytes) -> Iterator[bytes]:
    for number in range(len(_KINDS)):
        yield from (bytes([number]) + raw for raw in raws)


def _schema1_seeds() -> Iterator[bytes]:
    yield (GOLDEN / "schema1-signed.json").read_bytes()
    layers = [("b" * 64, "a" * 64), ("a" * 64, "")]
    document = {
        "schemaVersion": 1,
        "fsLayers": [{"blobSum": DIGEST} for _ in layers],
        "history": [{"v1Compatibility": json.dumps({"id": id_, "parent": parent})} for id_, parent in layers],
    }
    yield _json(document)
    inner = json.dumps({"id": "a" * 64}).replace("}", ', "x": ' + deep(300).decode() + "}")
    yield _json({**document, "fsLayers": [{"blobSum": DIGEST}], "history": [{"v1Compatibility": inner}]})
    protected = base64.urlsafe_b64encode(_json({"formatLength": 20, "formatTail": "Cn0"})).decode().rstrip("=")
    signature = {"header": {"alg": "ES256", "jwk": {}}, "signature": "AAAA", "protected": protected}
    yield _json(document | {"signatures": [signature]})


def _saved_seeds() -> Iterator[bytes]:
    images = [{"Config": "a.json", "RepoTags": ["a:1", "b.example/c:2"], "Layers": ["a/layer.tar", "b.tar"]}]
    yield b"a:1\n" + _json(images)
    yield b"\n" + _json(images * 2)


def _signature_seeds() -> Iterator[bytes]:
    yield b"\xa3\x01"
    yield b"\0simple-signing\n\x90"
    yield b"\0sigstore-json\n" + _json({"mimeType": "t", "payload": "AAAA", "annotations": {"a": "b"}})


DIGITS = b"9" * 5000
"""More than ``int`` takes of a text."""


def deep(depth: int) -> bytes:
    """A JSON value nested as deeply; what can be read cannot always be written."""
    return b"[" * depth + b"]" * depth


def _with_deep(raw: bytes) -> Iterator[bytes]:
    """A document, and others like it with a key that nobody knows."""
    yield raw
    yield from (raw[:-1] + b', "unknown": ' + deep(depth) + b"}" for depth in (200, 300, 1000))


_REFERENCES = (b"alpine", b"q.io:5000/a/b:t", b"docker://a@" + DIGEST.encode(), b"[::1]:5/a", b"LOCAL/a__b/c-d:1")
_LOCATIONS = (
    *(b"oci:/a:name", b"oci-archive:/a:@3", b"dir:/a", b"docker-archive:/a:b:1", b"docker-daemon:" + DIGEST.encode()),
    *(b"docker-daemon:a:1", b"containers-storage:[overlay@/a+/b:c=d,e=f]a:1", b"tarball:/a:/b", b"sif:/a"),
    b"containers-storage:a@" + HEX.encode(),
)
_USAGE = (UsageError,)
_DOCUMENT = (DocumentError,)

TARGETS = (
    Target("reference", _reference, (InvalidReferenceError,), lambda: _REFERENCES, (b"docker://", b"__", b"@sha256:")),
    Target("location", _location, (InvalidReferenceError,), lambda: (*_REFERENCES, *_LOCATIONS), (b":@", b"[", b"+")),
    Target("digest", _digest, (InvalidDigestError,), lambda: (DIGEST.encode(), b"sha512:" + b"0" * 128)),
    Target("platform", _platform, _USAGE, lambda: (b"linux/amd64", b"linux/arm/v7", b"linux/armhf"), (b"aarch64",)),
    Target(
        "selection", _selection, _USAGE, lambda: (b"-all", b"ssparse:linux/arm,digest=" + DIGEST.encode(), b"-system")
    ),
    Target(
        "document",
        _document,
        _DOCUMENT,
        lambda: _documents(*_with_deep(MANIFEST), DOCKER_MANIFEST, *_with_deep(INDEX), LIST),
        _DOCUMENT_WORDS,
        steps=(100_000, 1000),
    ),
    Target("config", _config, _DOCUMENT, lambda: _with_deep(CONFIG), (*_JSON_WORDS, b'"diff_ids"', b'"history"')),
    Target("schema1", _schema1, _DOCUMENT, _schema1_seeds, (*_JSON_WORDS, b'"throwaway"', b'"v1Compatibility"')),
    Target(
        "layout-index",
        _layout,
        _DOCUMENT,
        lambda: (*(b"v1\n" + each for each in _with_deep(INDEX)), b"\n" + LIST, b"x\n{}"),
        _DOCUMENT_WORDS,
    ),
    Target("layout-version", _layout_version, _DOCUMENT, lambda: (layout.VERSION,), _JSON_WORDS),
    Target(
        "directory-version",
        _directory_version,
        _DOCUMENT,
        lambda: (b"Directory Transport Version: 1.1\n", b"Directory Transport Version: 1." + DIGITS + b"\n"),
    ),
    Target("saved-images", _saved, _DOCUMENT, _saved_seeds, (*_JSON_WORDS, b'"RepoTags"', b'"Layers"')),
    Target("signature-file", _signature, _DOCUMENT, _signature_seeds, (*_JSON_WORDS, b'"payload"', b"\0")),
    Target(
        "semver",
        _semver,
        _USAGE,
        lambda: (b"1.2.3-rc.1\n>=1.2, <2 || ^3", b"v1\n1.2 - 3.x", b"1\n~1.2.3-a", DIGITS.join((b"1-", b"\n>1-", b""))),
    ),
    Target(
        "instruction",
        _instruction,
        _USAGE,
        lambda: (b'CMD ["sh"]', b"ENV A=b C='d e'", b"EXPOSE=80/tcp 1-2", b"LABEL a b", b"WORKDIR ../x", b"USER a"),
        (b"ENTRYPOINT ", b"VOLUME ", b"ONBUILD ", b"STOPSIGNAL "),
    ),
    Target("referrers", _referrers, _DOCUMENT, lambda: (*_with_deep(INDEX), *_with_deep(MANIFEST)), _DOCUMENT_WORDS),
)
