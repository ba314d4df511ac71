"""Deleting an image where it is: on a registry, in an image layout, in a store.

On a registry that is the manifest with every tag of it, and its signatures in a lookaside store of files; what the
manifest needs goes when the registry collects. In a layout the blobs that nothing else needs go too; in a store an
image that is named by one of several names loses that name. The other transports hold one image, which is removed with
its file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.access import Access
from asyncpull.copying.publish import RegistrySink
from asyncpull.errors import UsageError
from asyncpull.registry.client import RegistryClient
from asyncpull.spec.location import LayoutLocation, RegistryLocation, StorageLocation
from asyncpull.spec.reference import DEFAULT_TAG
from asyncpull.trust.gate import Gate
from asyncpull.trust.scopes import of_reference

if TYPE_CHECKING:
    from asyncpull.spec.location import Location
    from asyncpull.trust.policyfile import TrustOptions


async def delete_image(
    location: Location, access: Access | None = None, *, only_tag: bool = False, trust: TrustOptions | None = None
) -> tuple[str, ...]:
    """Delete what ``location`` names; gives what is gone: a digest, or names and the ID of a store.

    With ``only_tag`` a registry is asked to forget the tag and to keep the image, which not every one can. ``trust``
    says where signatures are. Raises UsageError for transports without deletion; NotFoundError, NotInStoreError;
    SourceError where the registry does not allow it; ConfigurationError, DocumentError, StoreError.
    """
    access = access or Access()
    if only_tag and not isinstance(location, RegistryLocation):
        raise UsageError(f"{location}: a tag alone is deleted on a registry; elsewhere it is all the image has")
    match location:
        case RegistryLocation():
            return (await _on_registry(location, access, trust, only_tag=only_tag),)
        case LayoutLocation():
            from asyncpull.destination.layoutdeletion import delete_from_layout

            return (str(await delete_from_layout(location, keeps_blobs=access.shared_blobs is not None)),)
        case StorageLocation():
            from asyncpull.store.store import Store

            async with Store.open(access.store_at(location)) as store:
                return await store.remove_image(location.name)
        case _:
            raise UsageError(
                f"{location}: images of {location.transport} are not deleted one by one", "remove the file or directory"
            )


async def _on_registry(
    location: RegistryLocation, access: Access, trust: TrustOptions | None, *, only_tag: bool
) -> str:
    reference = location.reference
    async with RegistryClient(access.registry, retry=access.retry) as client:
        if not only_tag:
            digest = await client.delete(reference)
            signatures = RegistrySink(client, reference, of_reference(reference), Gate(trust).directory)
            await signatures.forget_signatures(digest)
            return str(digest)
        if reference.digest is not None:
            raise UsageError(f"{location} names a digest, and no tag alone")
        await (await client.repository(reference)).delete(reference.tag or DEFAULT_TAG)
        return str(reference)
