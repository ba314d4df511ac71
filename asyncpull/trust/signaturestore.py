"""Where the signatures of an image are, for every transport that has any.

A registry's images have them in a *lookaside* store beside it (files or a web server), or in the registry itself where
that has the extension for it; those of sigstore are attached, as a manifest with a tag made from the digest, or as
bundles, in manifests that say which one they are about.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from asyncpull.errors import (
    DocumentError,
    DocumentTooLargeError,
    NotFoundError,
    StoreCorruptError,
    StoreError,
    UnavailableError,
)
from asyncpull.http import HttpClient
from asyncpull.proxies import Proxies
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.digest import Digest
from asyncpull.spec.fields import Fields
from asyncpull.spec.manifest import Descriptor
from asyncpull.spec.mediatype import OCI_MANIFEST
from asyncpull.spec.signature import (
    BUNDLE_TYPE,
    SIGNATURE_LIMIT,
    SIGNATURES_LIMIT,
    SIGNATURES_SIZE_LIMIT,
    SigstoreSignature,
    SimpleSignature,
    signature_from_file,
)
from asyncpull.trust.registriesd import signature_directory, signature_url
from asyncpull.trust.scopes import of_reference
from asyncpull.trust.statement import SIGNED_IMAGE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from asyncpull.registry.client import RegistryClient
    from asyncpull.spec.reference import Reference
    from asyncpull.spec.signature import Signature
    from asyncpull.store.store import Store
    from asyncpull.store.views import ImageRecord
    from asyncpull.trust.registriesd import RegistriesDirectory

_PREDICATE = "dev.sigstore.bundle.predicateType"
# cosign lists its bundles by the type of their empty config where the registry does not list them itself.
_MAY_BE_BUNDLES = frozenset({BUNDLE_TYPE, "application/vnd.oci.empty.v1+json", ""})


class Signatures(Protocol):
    """The signatures of what one location names; nothing about them is verified."""

    async def of(self, manifest: Digest, *, is_instance: bool) -> tuple[Signature, ...]:
        """Those of the manifest with this digest; ``is_instance`` tells that an index was named, which lists it.

        Raises SourceError, StoreError, DocumentError, ConfigurationError.
        """


class NoSignatures:
    """What transports have that cannot hold any."""

    async def of(self, manifest: Digest, *, is_instance: bool) -> tuple[Signature, ...]:
        """None."""
        return ()


class RegistrySignatures:
    """The signatures of an image of a registry; what ``directory`` gives says where they are.

    It may say so of the registry, or of a place that registries.conf has for it, such as a mirror: podman looks for
    the place that it pulls from. What is found anywhere counts, since signatures say for themselves what they are for.
    """

    def __init__(
        self,
        client: RegistryClient,
        reference: Reference,
        directory: Callable[[], Awaitable[RegistriesDirectory]],
        environ: Mapping[str, str],
    ) -> None:
        self._client, self._reference = client, reference
        self._directory, self._environ = directory, environ

    async def of(self, manifest: Digest, *, is_instance: bool) -> tuple[Signature, ...]:
        """Those of the registry's extension or else of the lookaside store, and those that are attached."""
        directory = await self._directory()
        places = await self._places()
        listed = await self._client.listed_signatures(self._reference, manifest)
        beside = await self._beside(directory, places, manifest) if listed is None else parse_listed(listed)
        if not any(directory.uses_attachments(of_reference(place)) for place in places):
            return beside
        bundles = await attached_bundles(self._client, self._reference, manifest, asks_mirrors=True)
        return (*beside, *await self._attached(manifest), *bundles)

    async def _places(self) -> tuple[Reference, ...]:
        """What the image is called at the registry, and at the other places that it may be pulled from."""
        accounts = [endpoint.account for endpoint in await self._client.endpoints(self._reference)]
        others = (account.partition("/") for account in dict.fromkeys(accounts) if account != self._reference.name)
        return (self._reference, *(replace(self._reference, domain=domain, path=path) for domain, _, path in others))

    async def _beside(
        self, directory: RegistriesDirectory, places: Sequence[Reference], manifest: Digest
    ) -> tuple[Signature, ...]:
        bases = {(directory.lookaside(of_reference(place)), place.path): place for place in places}
        found: list[Signature] = []
        for (base, _path), place in bases.items():
            if urlsplit(base).scheme == "file":
                found += await asyncio.to_thread(read_signature_files, signature_directory(base, place, manifest), "")
            else:
                found += await self._from_server(base, place, manifest)
        return tuple(found)

    async def _from_server(self, base: str, place: Reference, manifest: Digest) -> list[Signature]:
        found: list[Signature] = []
        size = 0
        async with HttpClient(proxies=Proxies.from_environ(self._environ)) as http:
            for number in range(1, SIGNATURES_LIMIT + 1):
                url = signature_url(base, place, manifest, number)
                raw = await _fetched(http, url)
                if raw is None:
                    return found
                size += len(raw)
                _require_size(size, base)
                found.append(signature_from_file(raw, f"signature {number}"))
        raise _too_many(base)

    async def _attached(self, manifest: Digest) -> tuple[Signature, ...]:
        tagged = self._reference.with_tag(attachment_tag(manifest))
        source = RegistrySource(self._client, tagged)
        try:
            document = await source.manifest()
        except NotFoundError:
            return ()
        found = []
        for layer in parse_attachments(document.raw, document.media_type):
            payload = await source.blob_bytes(layer, SIGNATURE_LIMIT)
            found.append(SigstoreSignature(layer.media_type, payload, MappingProxyType(dict(layer.annotations))))
        return tuple(found)


async def attached_bundles(
    client: RegistryClient, reference: Reference, manifest: Digest, *, asks_mirrors: bool = False
) -> tuple[SigstoreSignature, ...]:
    """The bundles of sigstore that are about ``manifest`` in the repository of ``reference``, or in mirrors of it.

    Raises SourceError, DocumentError.
    """
    source = RegistrySource(client, reference)
    found: list[SigstoreSignature] = []
    size = 0
    for referrer in await client.referrers(reference, manifest, asks_mirrors=asks_mirrors):
        if referrer.artifact_type not in _MAY_BE_BUNDLES or not _may_sign(referrer.descriptor.annotations):
            continue
        document = await source.manifest(referrer.descriptor.digest)
        bundle = parse_bundle_manifest(document.raw)
        if bundle is None:
            continue
        payload = await source.blob_bytes(bundle, SIGNATURE_LIMIT)
        size += len(payload)
        _require_size(size, str(reference))
        if len(found) == SIGNATURES_LIMIT:
            raise _too_many(str(reference))
        found.append(SigstoreSignature(BUNDLE_TYPE, payload))
    return tuple(found)


class DirectorySignatures:
    """The signatures in a directory of ``dir:``."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    async def of(self, manifest: Digest, *, is_instance: bool) -> tuple[Signature, ...]:
        """Those of the manifest itself, or of an instance, which are named for its digest."""
        prefix = ""
        if is_instance:
            algorithm = "" if manifest.algorithm == "sha256" else f"{manifest.algorithm}-"
            prefix = f"{algorithm}{manifest.encoded}."
        return await asyncio.to_thread(read_signature_files, self._path, prefix)


class StoredSignatures:
    """The signatures that a store has of an image."""

    def __init__(self, store: Store, record: ImageRecord) -> None:
        self._store, self._record = store, record

    async def of(self, manifest: Digest, *, is_instance: bool) -> tuple[Signature, ...]:
        """Those of the image, or those of one of several manifests that the image goes by."""
        try:
            fields = Fields.from_bytes(self._record.metadata.encode() or b"{}", "the metadata of the image")
            sizes = fields.get("signature-sizes", list, [])
            if is_instance:
                sizes = Fields.of(fields.get("signatures-sizes", dict, {}), "signatures-sizes").get(
                    str(manifest), list, []
                )
        except DocumentError as error:
            raise StoreCorruptError(f"image {self._record.id}: {error}") from error
        if not sizes:
            return ()
        raw = await self._store.big_data(self._record, f"signature-{manifest.encoded}" if is_instance else "signatures")
        found, position = [], 0
        for number, size in enumerate(sizes, 1):
            if not isinstance(size, int) or size < 0 or position + size > len(raw):
                raise StoreCorruptError(f"image {self._record.id}: its signatures have other sizes than it says")
            found.append(signature_from_file(raw[position : position + size], f"signature {number}"))
            position += size
        return tuple(found)


def read_signature_files(directory: Path, prefix: str) -> tuple[Signature, ...]:
    """The files ``PREFIXsignature-1`` and so on, up to the first that is missing. Raises DocumentError, StoreError."""
    found: list[Signature] = []
    size = 0
    for number in range(1, SIGNATURES_LIMIT + 1):
        path = directory / f"{prefix}signature-{number}"
        try:
            with path.open("rb") as file:
                raw = file.read(SIGNATURE_LIMIT + 1)
        except (FileNotFoundError, NotADirectoryError):
            return tuple(found)
        except OSError as error:
            raise StoreError(f"cannot be read: {error.strerror}", os.fspath(path)) from error
        if len(raw) > SIGNATURE_LIMIT:
            raise DocumentTooLargeError(f"{path}: more than {SIGNATURE_LIMIT} bytes, which no signature has")
        size += len(raw)
        _require_size(size, str(directory))
        found.append(signature_from_file(raw, str(path)))
    raise _too_many(str(directory))


def attachment_tag(manifest: Digest) -> str:
    """The tag under which what sigstore attaches to a manifest is found."""
    return f"{manifest.algorithm}-{manifest.encoded}.sig"


def parse_attachments(raw: bytes, media_type: str | None) -> tuple[Descriptor, ...]:
    """The layers of a manifest of attachments, each of them one. Raises DocumentError."""
    what = "the manifest of attached signatures"
    if (media_type or OCI_MANIFEST).partition(";")[0].strip().lower() != OCI_MANIFEST:
        raise DocumentError(f"{what} has the media type {media_type!r}")
    found = []
    for item, where in Fields.from_bytes(raw, what).array("layers"):
        layer = Fields.of(item, where)
        annotations = layer.get("annotations", dict, {})
        if not all(isinstance(value, str) for value in annotations.values()):
            raise DocumentError(f"{where}.annotations has something that is no string")
        digest, size = Digest.parse(layer.get("digest", str)), layer.get("size", int)
        if not 0 <= size <= SIGNATURE_LIMIT:
            raise DocumentTooLargeError(f"{where} has {size} bytes, the limit is {SIGNATURE_LIMIT}")
        found.append(Descriptor(layer.get("mediaType", str, ""), digest, size, annotations=dict(annotations)))
    if len(found) > SIGNATURES_LIMIT:
        raise _too_many(what)
    _require_size(sum(each.size for each in found), what)
    return tuple(found)


def is_bundle(signature: Signature) -> bool:
    """Whether it is a bundle of sigstore, which is in a manifest of its own."""
    return isinstance(signature, SigstoreSignature) and signature.media_type == BUNDLE_TYPE


def parse_bundle_manifest(raw: bytes) -> Descriptor | None:
    """The bundle that is the one layer of a manifest; None where that holds something else. Raises DocumentError."""
    what = "the manifest of a bundle"
    manifest = Fields.from_bytes(raw, what)
    layers = manifest.array("layers")
    annotations = manifest.get("annotations", dict, {})
    if manifest.get("artifactType", str, "") != BUNDLE_TYPE or len(layers) != 1 or not _may_sign(annotations):
        return None
    layer = Fields.of(*layers[0])
    return Descriptor(layer.get("mediaType", str, ""), Digest.parse(layer.get("digest", str)), layer.get("size", int))


def bundle_manifest(subject: Descriptor, config: Descriptor, bundle: Descriptor) -> bytes:
    """The manifest that says of ``bundle`` that it is about ``subject``."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": BUNDLE_TYPE,
            "config": descriptor_as_json(config),
            "layers": [descriptor_as_json(bundle)],
            "subject": descriptor_as_json(subject),
            "annotations": {"dev.sigstore.bundle.content": "dsse-envelope", _PREDICATE: SIGNED_IMAGE},
        },
        separators=(",", ":"),
    ).encode()


def descriptor_as_json(descriptor: Descriptor) -> dict[str, object]:
    """What a manifest says of a blob."""
    return {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}


def _may_sign(annotations: Mapping[str, object]) -> bool:
    """Whether a bundle is a signature, as far as annotations say: most attestations are none, and larger."""
    return annotations.get(_PREDICATE, SIGNED_IMAGE) == SIGNED_IMAGE


def parse_listed(raw: bytes) -> tuple[Signature, ...]:
    """What a registry answers by its extension for signatures; other kinds than ours are left out."""
    found: list[Signature] = []
    for item, where in Fields.from_bytes(raw, "the registry's list of signatures").array("signatures"):
        entry = Fields.of(item, where)
        if (entry.get("schemaVersion", int, 0), entry.get("type", str, "")) != (2, "atomic"):
            continue
        try:
            found.append(SimpleSignature(base64.b64decode(entry.get("content", str, ""), validate=True)))
        except (binascii.Error, ValueError) as error:
            raise DocumentError(f"{where}.content is not base64") from error
    if len(found) > SIGNATURES_LIMIT:
        raise _too_many("the registry's list")
    return tuple(found)


async def _fetched(http: HttpClient, url: str) -> bytes | None:
    async with http.request("GET", url) as response:
        if response.status == 404:
            return None
        if response.status != 200:
            raise UnavailableError(
                f"{response.url}: the store of signatures answers {response.status}", temporary=response.status >= 500
            )
        return await response.read(SIGNATURE_LIMIT, "a signature")


def _require_size(size: int, where: str) -> None:
    if size > SIGNATURES_SIZE_LIMIT:
        raise DocumentTooLargeError(
            f"{where}: the signatures of one manifest have more than {SIGNATURES_SIZE_LIMIT} bytes, which is the limit"
        )


def _too_many(where: str) -> DocumentError:
    return DocumentError(f"{where} has more than {SIGNATURES_LIMIT} signatures of one manifest, which is the limit")
