"""What one copy has to do with signatures: manifests are judged, their signatures go along, and new ones are made.

A manifest that changes on its way loses the signatures that it had: such a copy is refused, unless it is told to leave
signatures behind. So is one to a place that cannot hold them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.errors import UsageError
from asyncpull.spec.location import DirectoryLocation, RegistryLocation, StorageLocation
from asyncpull.spec.reference import parse_reference
from asyncpull.spec.schema1 import document_digest
from asyncpull.trust.scopes import of_reference, scopes_of
from asyncpull.trust.signaturestore import (
    DirectorySignatures,
    NoSignatures,
    StoredSignatures,
    is_bundle,
    parse_bundle_manifest,
)
from asyncpull.trust.signing import SigstoreSigner

if TYPE_CHECKING:
    from asyncpull.copying.publish import SignatureSink
    from asyncpull.registry.client import RegistryClient
    from asyncpull.spec.destination import Destination
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.location import Location
    from asyncpull.spec.reference import Reference
    from asyncpull.spec.signature import Signature
    from asyncpull.spec.source import Source, SourceDocument
    from asyncpull.trust.gate import Gate
    from asyncpull.trust.scopes import ImageScopes
    from asyncpull.trust.signaturestore import Signatures
    from asyncpull.trust.signing import Signing


class Notary:
    """Judges what comes from ``image``, whose signatures are in ``found``, and signs what is called ``name`` then.

    ``sink`` is where signatures go, None where the destination holds none. ``name`` is None where the destination
    gives no name. ``referrers_follow`` tells that what is about a manifest is copied together with it, bundles of
    sigstore too, so that they need not be put.
    """

    def __init__(
        self,
        gate: Gate,
        image: ImageScopes,
        found: Signatures,
        sink: SignatureSink | None,
        name: Reference | None,
        signing: Signing,
        *,
        referrers_follow: bool = False,
    ) -> None:
        self._referrers_follow = referrers_follow
        self._gate, self._image, self._found, self._sink, self._signing = gate, image, found, sink, signing
        self._name = signing.identity or name
        self._brought: dict[Digest, tuple[Signature, ...]] = {}
        if signing.signers and sink is None:
            raise UsageError("the destination cannot hold signatures", "copy to a registry, a store or dir:")
        if signing.signers and self._name is None:
            raise UsageError("there is no name at the destination that could be signed", "give one: --sign-identity")

    async def admit(self, manifest: bytes, *, is_instance: bool) -> None:
        """Raise PolicyError unless the policy accepts ``manifest``. Its signatures are kept in mind."""
        carries = self._carries
        judged = await self._gate.judge(
            self._image, manifest, self._found, is_instance=is_instance, wants_signatures=carries
        )
        judged.verdict.require()
        self._brought[document_digest(manifest)] = judged.signatures if carries else ()

    async def bring(self, index: bytes) -> None:
        """Keep the signatures of an index in mind, which is not judged itself: what it lists is."""
        if self._carries:
            digest = document_digest(index)
            self._brought[digest] = await self._found.of(digest, is_instance=False)

    def signs(self, manifest: Digest) -> bool:
        """Whether a manifest that was admitted, or brought, will have signatures at the destination."""
        return bool(self._signing.signers or self._brought.get(manifest))

    async def signatures(self, before: Digest, after: SourceDocument) -> tuple[Signature, ...]:
        """Those that the manifest has at the destination: what it brought along, and new ones.

        ``before`` is what the digest was. Raises UsageError where the old ones are not good any more.
        """
        brought = self._brought.get(before, ())
        if brought and document_digest(after.raw, before.algorithm) != before:
            raise UsageError(
                f"{before} is signed, and would be changed on its way",
                "copy it as it is, or without its signatures: --remove-signatures",
            )
        made: list[Signature] = []
        for signer in self._signing.signers:
            assert self._name is not None  # asked for when this was made
            made.append(await signer.sign(after.raw, self._name))
        return (*brought, *made)

    async def certify(self, before: Digest, after: SourceDocument, *, is_instance: bool) -> None:
        """Put the signatures of a manifest where the destination has them. Raises what signing and putting raise."""
        found = await self.signatures(before, after)
        if self._referrers_follow:
            found = tuple(each for each in found if not is_bundle(each))
        if found and self._sink is not None:
            await self._sink.put_signatures(after, found, is_instance=is_instance)

    def leaves_behind(self, referrer: bytes) -> bool:
        """Whether a manifest that is about another one is a signature, and signatures are not taken along."""
        return self._signing.removes and parse_bundle_manifest(referrer) is not None

    @property
    def _carries(self) -> bool:
        return self._sink is not None and not self._signing.removes


async def open_notary(
    gate: Gate,
    signing: Signing,
    source: Location,
    origin: Source,
    reader: RegistryClient | None,
    destination: Location,
    target: Destination | None = None,
    writer: RegistryClient | None = None,
    *,
    referrers_follow: bool = False,
) -> Notary:
    """The notary of a copy from ``origin``, which was opened at ``source``, to ``target`` at ``destination``.

    ``reader`` and ``writer`` are the clients for registries, where either side is one; ``target`` is None for a store,
    whose records hold the signatures. ``referrers_follow`` is as for the notary. Raises UsageError and
    ConfigurationError where signatures are to be made that the destination cannot hold.
    """
    sink, name = await _goal(gate, signing, destination, target, writer)
    found = evidence(gate, source, origin, reader)
    return Notary(gate, *found, sink, name, signing, referrers_follow=referrers_follow)


def evidence(
    gate: Gate, source: Location, origin: Source, reader: RegistryClient | None
) -> tuple[ImageScopes, Signatures]:
    """What ``gate`` judges ``origin`` by, which was opened at ``source``: what it is called, and its signatures."""
    match source:
        case RegistryLocation() if reader is not None:
            return scopes_of(source), gate.registry_signatures(reader, source.reference)
        case DirectoryLocation():
            return scopes_of(source), DirectorySignatures(source.path)
        case StorageLocation():
            from asyncpull.source.storage import StorageSource  # brings along the store, which others do not need

            if isinstance(origin, StorageSource):
                config = origin.store.config
                image = scopes_of(
                    source, driver=config.driver, graph_root=str(config.graph_root), image_id=origin.image.id
                )
                return image, StoredSignatures(origin.store, origin.image)
    return scopes_of(source), NoSignatures()


async def _goal(
    gate: Gate, signing: Signing, destination: Location, target: Destination | None, writer: RegistryClient | None
) -> tuple[SignatureSink | None, Reference | None]:
    """Where signatures go at ``destination``, if it holds any, and which name is signed, if it gives one."""
    match destination:
        case RegistryLocation() if writer is not None:
            from asyncpull.copying.publish import RegistrySink

            name = destination.reference
            registry = RegistrySink(writer, name, of_reference(name), gate.directory)
            if any(isinstance(each, SigstoreSigner) for each in signing.signers):
                await registry.require_attachments()
            return registry, name
        case DirectoryLocation():
            from asyncpull.destination.directory import DirectoryDestination

            return (target if isinstance(target, DirectoryDestination) else None), None
        case StorageLocation():
            from asyncpull.copying.publish import InRecord

            return InRecord(), parse_reference(destination.name)
        case _:
            return None, None
