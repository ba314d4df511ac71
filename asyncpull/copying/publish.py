"""Putting signatures where they are looked for (``trust.signaturestore``); those that are there already stay.

A signature in OpenPGP goes to the registry's extension if there is one, else into the lookaside store, which must be of
files. Those of sigstore are attached: uploaded as the layers of a manifest whose tag is made of the digest, or each
bundle as that of a manifest that says what it is about.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from asyncpull.copying.content import HeldContent
from asyncpull.destination.registry import RegistryDestination
from asyncpull.errors import ConfigurationError, NotFoundError, StoreWriteError
from asyncpull.log import Log
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.digest import Digest
from asyncpull.spec.fields import Fields, to_bytes
from asyncpull.spec.manifest import CONFIG_LIMIT, Descriptor
from asyncpull.spec.mediatype import OCI_CONFIG, OCI_EMPTY, OCI_MANIFEST
from asyncpull.spec.schema1 import document_digest
from asyncpull.spec.signature import (
    BUNDLE_TYPE,
    SIGNATURES_LIMIT,
    SigstoreSignature,
    SimpleSignature,
    signature_to_file,
)
from asyncpull.spec.source import SourceDocument
from asyncpull.trust.registriesd import signature_directory
from asyncpull.trust.signaturestore import (
    attached_bundles,
    attachment_tag,
    bundle_manifest,
    descriptor_as_json,
    is_bundle,
    parse_attachments,
    parse_listed,
    read_signature_files,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asyncpull.registry.client import RegistryClient
    from asyncpull.spec.reference import Reference
    from asyncpull.spec.signature import Signature
    from asyncpull.trust.registriesd import RegistriesDirectory
    from asyncpull.trust.scopes import ImageScopes

_log = Log(__name__)

_ATTACHED = "the manifest of attached signatures"
_HINT = "registries.d says where signatures go: containers-registries.d(5)"


class SignatureSink(Protocol):
    """Where signatures of manifests are put."""

    async def put_signatures(
        self, document: SourceDocument, signatures: Sequence[Signature], *, is_instance: bool
    ) -> None:
        """Add signatures of a manifest; ``is_instance`` tells that an index gets the name, which lists it.

        Raises SourceError, StoreError, and ConfigurationError where signatures cannot be put.
        """


class InRecord:
    """A store: what signatures an image has is part of its record, which is made by the pull into it."""

    async def put_signatures(
        self, document: SourceDocument, signatures: Sequence[Signature], *, is_instance: bool
    ) -> None:
        """Nothing: they are in the record already."""


class RegistrySink:
    """The places for signatures of a registry's image; what ``directory`` gives says where they are."""

    def __init__(
        self,
        client: RegistryClient,
        reference: Reference,
        image: ImageScopes,
        directory: Callable[[], Awaitable[RegistriesDirectory]],
    ) -> None:
        self._client, self._reference, self._image, self._directory = client, reference, image, directory

    async def require_attachments(self) -> None:
        """Raise ConfigurationError where signatures of sigstore may not be written."""
        if not (await self._directory()).uses_attachments(self._image):
            raise ConfigurationError(
                f"{self._reference}: use-sigstore-attachments is not set, so no signature can be attached", _HINT
            )

    async def put_signatures(
        self, document: SourceDocument, signatures: Sequence[Signature], *, is_instance: bool
    ) -> None:
        """Add signatures of a manifest that the repository has, or will have."""
        manifest = document_digest(document.raw)
        simple = [each for each in signatures if isinstance(each, SimpleSignature)]
        sigstore = [each for each in signatures if isinstance(each, SigstoreSignature)]
        attached = [each for each in sigstore if not is_bundle(each)]
        bundles = [each for each in sigstore if is_bundle(each)]
        if sigstore:
            await self.require_attachments()
        if attached:
            await self._attach(manifest, attached)
        if bundles:
            await self._refer(document, bundles)
        if simple:
            listed = await self._client.listed_signatures(self._reference, manifest)
            if listed is not None:
                await self._list(manifest, simple, listed)
            else:
                await self._lay_beside(manifest, simple)

    async def _list(self, manifest: Digest, signatures: Sequence[SimpleSignature], listed: bytes) -> None:
        there = parse_listed(listed)
        for signature in signatures:
            if signature not in there:
                name = f"{manifest}@{os.urandom(16).hex()}"
                await self._client.list_signature(self._reference, manifest, name, signature.message)

    async def forget_signatures(self, manifest: Digest) -> None:
        """Remove the signatures of a manifest that was deleted from the lookaside store, if that is one of files.

        What is attached belongs to the registry. Raises ConfigurationError, StoreWriteError.
        """
        base = (await self._directory()).staging(self._image)
        if urlsplit(base).scheme == "file":
            await asyncio.to_thread(remove_signature_files, signature_directory(base, self._reference, manifest))
        else:
            _log.info("signatures are only removed from files", store=base, manifest=str(manifest))

    async def _lay_beside(self, manifest: Digest, signatures: Sequence[SimpleSignature]) -> None:
        base = (await self._directory()).staging(self._image)
        if urlsplit(base).scheme != "file":
            raise ConfigurationError(f"{base}: signatures are only written to files; set a lookaside-staging", _HINT)
        place = signature_directory(base, self._reference, manifest)
        await asyncio.to_thread(add_signature_files, place, signatures)

    async def _attach(self, manifest: Digest, signatures: Sequence[SigstoreSignature]) -> None:
        tagged = self._reference.with_tag(attachment_tag(manifest))
        source = RegistrySource(self._client, tagged)
        document: dict[str, object] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {}, "layers": []}
        config: dict[str, object] = {"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers"}}
        there: tuple[Descriptor, ...] = ()
        try:
            found = await source.manifest()
        except NotFoundError:
            pass
        else:
            there = parse_attachments(found.raw, found.media_type)
            document = dict(Fields.from_bytes(found.raw, _ATTACHED).values)
            config_there = await source.blob_bytes(_config_of(found.raw), CONFIG_LIMIT)
            config = dict(Fields.from_bytes(config_there, f"the config of {_ATTACHED}").values)
        new = [each for each in signatures if not any(_is_same(each, layer) for layer in there)]
        if not new:
            return
        layers = [(Descriptor(each.media_type, Digest.of(each.payload), len(each.payload)), each) for each in new]
        document["layers"] = [
            *_list_of(document.get("layers")),
            *(descriptor_as_json(descriptor) | {"annotations": dict(each.annotations)} for descriptor, each in layers),
        ]
        config["rootfs"] = {
            "type": "layers",
            "diff_ids": [str(each.digest) for each in there] + [str(descriptor.digest) for descriptor, _ in layers],
        }
        config_raw = to_bytes(config, f"the config of {_ATTACHED}")
        of_config = Descriptor(OCI_CONFIG, Digest.of(config_raw), len(config_raw))
        document["config"] = descriptor_as_json(of_config)
        raw = to_bytes(document, _ATTACHED)
        blobs = [(of_config, config_raw), *((descriptor, each.payload) for descriptor, each in layers)]
        async with RegistryDestination(self._client, tagged) as destination:
            for descriptor, data in blobs:
                if not await destination.has_blob(descriptor):
                    await destination.put_blob(descriptor, HeldContent(data))
            await destination.commit(SourceDocument(raw, OCI_MANIFEST, Digest.of(raw)))

    async def _refer(self, document: SourceDocument, bundles: Sequence[SigstoreSignature]) -> None:
        media_type = (document.media_type or OCI_MANIFEST).partition(";")[0].strip()
        subject = Descriptor(media_type, document.digest, len(document.raw))
        there = {each.payload for each in await attached_bundles(self._client, self._reference, document.digest)}
        async with RegistryDestination(self._client, self._reference) as destination:
            for payload in dict.fromkeys(each.payload for each in bundles):
                if payload in there:
                    continue
                config = Descriptor(OCI_EMPTY, Digest.of(b"{}"), 2)
                bundle = Descriptor(BUNDLE_TYPE, Digest.of(payload), len(payload))
                for descriptor, data in ((config, b"{}"), (bundle, payload)):
                    if not await destination.has_blob(descriptor):
                        await destination.put_blob(descriptor, HeldContent(data))
                raw = bundle_manifest(subject, config, bundle)
                await destination.put_manifest(SourceDocument(raw, OCI_MANIFEST, Digest.of(raw)))


def add_signature_files(directory: Path, signatures: Sequence[Signature]) -> None:
    """Add the files ``signature-N`` behind those that are there. Each is there whole or not at all, and is synced.

    Raises StoreWriteError, and what reading those that are there raises.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        there = read_signature_files(directory, "")
        number = len(there)
        for signature in signatures:
            if signature in there:
                continue
            with tempfile.NamedTemporaryFile(dir=directory, prefix=".signature-") as file:
                file.write(signature_to_file(signature))
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
                number = _link(Path(file.name), directory, number + 1)
        _sync(directory)
    except OSError as error:
        raise StoreWriteError(f"signatures cannot be written: {error.strerror}", str(directory)) from error


def remove_signature_files(directory: Path) -> None:
    """Remove the files ``signature-N``, the last one first, and the directory if it is empty then.

    Raises StoreWriteError.
    """
    paths = [directory / f"signature-{number}" for number in range(1, SIGNATURES_LIMIT + 1)]
    try:
        for path in reversed(list(takewhile(Path.exists, paths))):
            path.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            if not os.listdir(directory):
                directory.rmdir()
    except OSError as error:
        raise StoreWriteError(f"signatures cannot be removed: {error.strerror}", str(directory)) from error


def _link(path: Path, directory: Path, number: int) -> int:
    """Give a file the next free number, also if somebody else adds one meanwhile."""
    while number <= SIGNATURES_LIMIT:
        try:
            os.link(path, directory / f"signature-{number}")
        except FileExistsError:
            number += 1
        else:
            return number
    raise StoreWriteError(f"there are {SIGNATURES_LIMIT} signatures already, which is the limit", str(directory))


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _config_of(raw: bytes) -> Descriptor:
    fields = Fields.from_bytes(raw, _ATTACHED)
    config = Fields.of(fields.get("config", dict), "config")
    return Descriptor(
        config.get("mediaType", str, ""), Digest.parse(config.get("digest", str)), config.get("size", int)
    )


def _is_same(signature: SigstoreSignature, layer: Descriptor) -> bool:
    same_payload = layer.digest == Digest.of(signature.payload, layer.digest.algorithm)
    return same_payload and layer.media_type == signature.media_type and layer.annotations == signature.annotations


def _list_of(value: object) -> list[object]:
    return value if isinstance(value, list) else []
