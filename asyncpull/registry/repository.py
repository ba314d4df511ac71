"""One repository at its registry, as those see it who change what is in it (distribution-spec 1.1, "Push").

Everything here is about the registry itself: a mirror is nobody to write to, and the ``location`` of registries.conf
says where to read, as it does for containers/image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from asyncpull.errors import (
    AuthenticationError,
    DigestMismatchError,
    InvalidDigestError,
    NotFoundError,
    UnavailableError,
)
from asyncpull.log import Log
from asyncpull.registry.referrers import subject_of
from asyncpull.registry.requests import DELETE, PUSH, Errand
from asyncpull.registry.upload import BlobUpload, UploadSession, give_up, is_there, size_there
from asyncpull.retry import retrying
from asyncpull.spec.digest import Digest
from asyncpull.spec.fields import Fields
from asyncpull.spec.mediatype import OCI_INDEX, OCI_MANIFEST

if TYPE_CHECKING:
    from asyncpull.registry.endpoint import Endpoint
    from asyncpull.registry.referrers import Referrer, Referrers
    from asyncpull.registry.requests import EndpointRequests
    from asyncpull.retry import RetryPolicy
    from asyncpull.spec.destination import Content
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.source import SourceDocument

_DELETE_HINT = "whoever runs the registry has to allow it"

_log = Log(__name__)


class Repository:
    """The repository of ``endpoint``. What fails for the moment is tried again as ``retry`` says."""

    def __init__(
        self, requests: EndpointRequests, endpoint: Endpoint, referrers: Referrers, retry: RetryPolicy
    ) -> None:
        self._requests, self._endpoint, self._referrers, self._retry = requests, endpoint, referrers, retry
        self._begun: dict[Digest, UploadSession] = {}

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there. Raises SourceError, and SizeMismatchError where it has another size."""
        return await retrying(self._retry, lambda: is_there(self._requests, self._endpoint, descriptor))

    async def blob_size(self, digest: Digest) -> int | None:
        """How many bytes a blob has that is there; None where it is not, or that is not said. Raises SourceError."""
        return await retrying(self._retry, lambda: size_there(self._requests, self._endpoint, digest)) or None

    async def mount_blob(self, descriptor: Descriptor, path: str) -> bool:
        """Have the blob out of the repository ``path`` of the same registry, if that can be. Raises SourceError.

        What the registry begins instead is an upload, which ``put_blob`` makes use of.
        """
        target = f"blobs/uploads/?mount={quote(str(descriptor.digest), safe='')}&from={quote(path, safe='')}"

        async def once() -> bool:
            async with self._requests.request(
                "POST", self._endpoint, target, {}, errand=Errand(PUSH.actions, (path,))
            ) as response:
                if response.status == 201:
                    return True
                session = UploadSession.of(response)
            before = self._begun.pop(descriptor.digest, None)
            self._begun[descriptor.digest] = session
            await give_up(self._requests, self._endpoint, before)
            return False

        try:
            return await retrying(self._retry, once)
        except (AuthenticationError, NotFoundError, UnavailableError) as error:
            if error.temporary:
                raise
            _log.debug("a blob could not be mounted", blob=str(descriptor.digest), path=path, reason=str(error))
            return False

    async def put_blob(self, descriptor: Descriptor, content: Content) -> None:
        """Upload a blob. After an error there is none. Raises what ``BlobUpload.run`` raises."""
        session = self._begun.pop(descriptor.digest, None)
        upload = BlobUpload(self._requests, self._endpoint, descriptor, content, self._retry, session)
        await upload.run()

    async def put_manifest(self, name: str | Digest, document: SourceDocument) -> None:
        """Have ``name``, a tag or the digest, stand for ``document``, and its subject know of it.

        Raises SourceError, ManifestRejectedError among them; DigestMismatchError where the registry says that it has
        got something else; DocumentError for a subject that is none.
        """
        subject = subject_of(document.raw)
        headers = {"Content-Type": _media_type(document)}

        async def once() -> bool:
            path = f"manifests/{name}"
            async with self._requests.request(
                "PUT", self._endpoint, path, headers, errand=PUSH, body=document.raw
            ) as response:
                _require_same(self._endpoint, document, response.headers.get("Docker-Content-Digest"))
                return "OCI-Subject" in response.headers

        knows_referrers = await retrying(self._retry, once)
        if subject is not None and not knows_referrers:
            await retrying(self._retry, lambda: self._referrers.add(subject, document))

    async def delete(self, name: str | Digest) -> None:
        """Delete a manifest with all its tags, or a tag alone, which not every registry can. Raises SourceError."""

        async def once() -> None:
            path, passed = f"manifests/{name}", frozenset({400, 405})
            async with self._requests.request(
                "DELETE", self._endpoint, path, {}, passed=passed, errand=DELETE
            ) as response:
                if response.status in passed:
                    raise UnavailableError(f"{self._endpoint.host} does not delete {path}", _DELETE_HINT)

        await retrying(self._retry, once)

    async def delete_manifest(self, document: SourceDocument) -> None:
        """Delete a manifest with all its tags; what it is about forgets it. Raises SourceError, DocumentError."""
        subject = subject_of(document.raw)
        await self.delete(document.digest)
        if subject is not None:
            await retrying(self._retry, lambda: self._referrers.remove(subject, document.digest))

    async def referrers(self, subject: Digest, artifact_type: str | None = None) -> tuple[Referrer, ...]:
        """What is about the manifest ``subject``, or what of that has ``artifact_type``.

        Raises SourceError, DocumentError.
        """
        return await retrying(self._retry, lambda: self._referrers.of(subject, artifact_type))

    async def aclose(self) -> None:
        """Take back what was begun and is not needed."""
        while self._begun:
            await give_up(self._requests, self._endpoint, self._begun.popitem()[1])


def _require_same(endpoint: Endpoint, document: SourceDocument, said: str | None) -> None:
    """Raise DigestMismatchError where the registry has ``said`` that it got something else."""
    try:
        digest = Digest.parse(said or str(document.digest))
    except InvalidDigestError:
        return
    # A registry may call a document by another algorithm than we do.
    if digest not in (document.digest, Digest.of(document.raw, digest.algorithm)):
        what = f"manifest {document.digest} as {endpoint.host} has received it"
        raise DigestMismatchError(what, str(document.digest), str(digest))


def _media_type(document: SourceDocument) -> str:
    """The Content-Type: what stands in the document, else what its source said, else what its keys make of it."""
    fields = Fields.from_bytes(document.raw, "manifest")
    said = (document.media_type or "").partition(";")[0].strip()
    if fields.get("schemaVersion", int, 2) == 1:
        signed = "+prettyjws" if "signatures" in fields.values else "+json"
        return f"application/vnd.docker.distribution.manifest.v1{signed}"
    return fields.get("mediaType", str, "") or said or (OCI_INDEX if "manifests" in fields.values else OCI_MANIFEST)
