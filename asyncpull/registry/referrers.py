"""Which manifests say that they are about another one (distribution-spec 1.1, "Listing Referrers").

A registry that knows referrers lists them, and answers a push of a manifest with a ``subject`` by ``OCI-Subject``. One
that does not is helped by its clients: an index under the tag ``ALGORITHM-HEX`` of the subject lists them, and whoever
pushes a manifest adds it there ("referrers tag schema"). Two that do so at the same moment could lose one of the two
entries: what was read is named by If-Match, for registries that heed it, and read again afterwards for all others.
"""

from __future__ import annotations

from asyncio import Lock
from typing import TYPE_CHECKING
from urllib.parse import quote

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError, NotFoundError, UnavailableError
from asyncpull.registry.pagination import next_page
from asyncpull.registry.requests import DELETE, PULL, PUSH
from asyncpull.spec.digest import Digest
from asyncpull.spec.fields import Fields, to_bytes
from asyncpull.spec.manifest import MANIFEST_LIMIT, Index, parse_document
from asyncpull.spec.mediatype import OCI_INDEX, is_index

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncpull.registry.endpoint import Endpoint
    from asyncpull.registry.requests import EndpointRequests, Errand
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.source import SourceDocument

_ACCEPT = {"Accept": OCI_INDEX}
_PAGES_LIMIT = 1000
# How often somebody else may be faster.
_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Referrer:
    """A manifest that is about another one; ``artifact_type`` is empty where its registry does not tell."""

    descriptor: Descriptor
    artifact_type: str = ""


def fallback_tag(digest: Digest) -> str:
    """The tag under which the referrers of ``digest`` are listed where the registry does not do that."""
    return f"{digest.algorithm[:32]}-{digest.encoded[:64]}"


def subject_of(raw: bytes) -> Digest | None:
    """What a manifest says it is about. Raises DocumentError."""
    document = Fields.from_bytes(raw, "manifest")
    subject = document.get("subject", dict, None)
    return None if subject is None else Digest.parse(Fields(subject, "manifest.subject").get("digest", str))


def parse_referrers(raw: bytes, media_type: str | None) -> tuple[Referrer, ...]:
    """The entries of a list of referrers. Raises DocumentError where it is no index."""
    document = Fields.from_bytes(raw, "the list of referrers")
    said = document.get("mediaType", str, "") or (media_type or OCI_INDEX).partition(";")[0].strip()
    index = parse_document(raw, media_type or OCI_INDEX) if is_index(said) else None
    if not isinstance(index, Index):
        raise DocumentError(f"the list of referrers is no index but {said!r}")
    entries = document.array("manifests")
    types = (Fields.of(*entry).get("artifactType", str, "") for entry in entries)
    return tuple(Referrer(*both) for both in zip(index.manifests, types, strict=True))


def entry_of(document: SourceDocument) -> dict[str, object]:
    """How a list of referrers describes a manifest. Raises DocumentError."""
    fields = Fields.from_bytes(document.raw, "manifest")
    config = fields.get("config", dict, {})
    artifact_type = fields.get("artifactType", str, "") or Fields(config, "manifest.config").get("mediaType", str, "")
    entry: dict[str, object] = {
        "mediaType": fields.get("mediaType", str, "") or document.media_type,
        "digest": str(document.digest),
        "size": len(document.raw),
    }
    annotations = fields.get("annotations", dict, {})
    return (
        entry
        | ({"artifactType": artifact_type} if artifact_type else {})
        | ({"annotations": annotations} if annotations else {})
    )


def with_entry(raw: bytes | None, entry: Mapping[str, object]) -> bytes | None:
    """The list ``raw`` (None is no list yet) with one more ``entry``; None if it is listed. Raises DocumentError."""
    index = _index(raw)
    manifests = [item for item, _ in Fields(index, "the list of referrers").array("manifests")]
    if any(isinstance(item, dict) and item.get("digest") == entry["digest"] for item in manifests):
        return None
    return to_bytes(index | {"manifests": [*manifests, dict(entry)]}, "the list of referrers")


def without_entry(raw: bytes | None, digest: Digest) -> bytes | None:
    """The list ``raw`` without the manifest ``digest``; None if it is not listed. Raises DocumentError."""
    if raw is None:
        return None
    index = _index(raw)
    manifests = [item for item, _ in Fields(index, "the list of referrers").array("manifests")]
    kept = [item for item in manifests if not (isinstance(item, dict) and item.get("digest") == str(digest))]
    if len(kept) == len(manifests):
        return None
    return to_bytes(index | {"manifests": kept}, "the list of referrers")


def _index(raw: bytes | None) -> dict[str, object]:
    if raw is None:
        return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    return dict(Fields.from_bytes(raw, "the list of referrers").values)


class Referrers:
    """The lists of one repository at ``endpoint``, asked once; whoever calls tries again."""

    def __init__(self, requests: EndpointRequests, endpoint: Endpoint) -> None:
        self._requests, self._endpoint = requests, endpoint
        self._locks: dict[Digest, Lock] = {}
        self._is_unknown = False  # such a path was never heard of there

    async def of(self, subject: Digest, artifact_type: str | None = None) -> tuple[Referrer, ...]:
        """The manifests that are about ``subject``, or those of them with ``artifact_type``.

        Raises SourceError, DocumentError, DocumentTooLargeError.
        """
        found = await self._listed(subject, artifact_type)
        if found is None:
            raw, _ = await self._fallback(subject, PULL)
            found = () if raw is None else parse_referrers(raw, OCI_INDEX)
        # A registry may filter, and need not.
        return tuple(each for each in found if artifact_type is None or each.artifact_type == artifact_type)

    async def add(self, subject: Digest, document: SourceDocument) -> None:
        """List ``document``, which the registry did not. Raises SourceError, DocumentError."""
        entry = entry_of(document)
        await self._change(subject, lambda raw: with_entry(raw, entry), PUSH)

    async def remove(self, subject: Digest, digest: Digest) -> None:
        """Do not list the manifest ``digest`` any more, where the registry does not see to that itself."""
        if await self._listed(subject, None) is None:
            await self._change(subject, lambda raw: without_entry(raw, digest), DELETE)

    async def _listed(self, subject: Digest, artifact_type: str | None) -> tuple[Referrer, ...] | None:
        """What the registry lists; None where it knows no referrers, which is found out once."""
        if self._is_unknown:
            return None
        found = await self._pages(subject, artifact_type)
        self._is_unknown = found is None
        return found

    async def _pages(self, subject: Digest, artifact_type: str | None) -> tuple[Referrer, ...] | None:
        """All pages of what the registry lists; None where it knows no referrers."""
        path = f"referrers/{subject}" + (f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else "")
        what = f"the referrers of {subject}"
        found: list[Referrer] = []
        size, target = 0, None
        for _ in range(_PAGES_LIMIT):
            try:
                async with self._requests.request("GET", self._endpoint, path, _ACCEPT, target=target) as response:
                    page = await response.read(MANIFEST_LIMIT * 4 - size, what)
                    links, media_type = response.all("Link"), response.headers.get("Content-Type")
                    url = response.url
            except NotFoundError:
                return None
            except UnavailableError as error:
                if error.temporary or target is not None:
                    raise
                return None
            if not (media_type or "").startswith(OCI_INDEX):
                return None  # some page for people
            size += len(page)
            found += parse_referrers(page, media_type)
            target = next_page(url, links)
            if target is None:
                return tuple(found)
        raise UnavailableError(f"{what} have more than {_PAGES_LIMIT} pages, which is the limit")

    async def _fallback(self, subject: Digest, errand: Errand) -> tuple[bytes | None, str | None]:
        """The list under the tag, None if there is none, and its ETag. Raises DocumentError where it is no index."""
        path = f"manifests/{fallback_tag(subject)}"
        async with self._requests.request(
            "GET", self._endpoint, path, _ACCEPT, passed=frozenset({404}), errand=errand
        ) as response:
            if response.status == 404:
                return None, None
            raw = await response.read(MANIFEST_LIMIT, path)
            parse_referrers(raw, response.headers.get("Content-Type"))
            return raw, response.headers.get("ETag")

    async def _change(self, subject: Digest, change: Callable[[bytes | None], bytes | None], errand: Errand) -> None:
        """Make the list under the tag what ``change`` makes of it, until there is nothing more to change."""
        path = f"manifests/{fallback_tag(subject)}"
        async with self._locks.setdefault(subject, Lock()):
            for _ in range(_ATTEMPTS):
                raw, tag = await self._fallback(subject, errand)
                changed = change(raw)
                if changed is None:
                    return
                headers = {"Content-Type": OCI_INDEX}
                if raw is None:
                    headers["If-None-Match"] = "*"
                elif tag is not None and not tag.startswith("W/"):
                    headers["If-Match"] = tag
                async with self._requests.request(
                    "PUT", self._endpoint, path, headers, passed=frozenset({412}), errand=errand, body=changed
                ):
                    pass
        message = f"the list of referrers of {subject} is changed by somebody else all the time"
        raise UnavailableError(message, temporary=True)
