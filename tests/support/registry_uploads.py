"""The half of the simulated registry that takes things: uploads, mounts, manifests, referrers, deletions.

By default it does what the distribution-spec wants; the attributes of ``Uploads`` say where it does not. Like the rest
of the simulator it uses nothing of asyncpull.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.registry_faults import Reply

if TYPE_CHECKING:
    from tests.support.registry_simulator import Request

_BEGIN = re.compile(r"/v2/(?P<repository>.+)/blobs/uploads/")
_UPLOAD = re.compile(r"/v2/(?P<repository>.+)/blobs/uploads/(?P<id>\d+)")
_MANIFEST = re.compile(r"/v2/(?P<repository>.+)/manifests/(?P<name>[^/]+)")
_REFERRERS = re.compile(r"/v2/(?P<repository>.+)/referrers/(?P<digest>[^/]+)")
_OCI_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(slots=True)
class Upload:
    """What has arrived of one upload, and how many answers have named it: only its newest URL is good."""

    data: bytearray = field(default_factory=bytearray)
    state: int = 0


@dataclass(slots=True)
class Uploads:
    """What was pushed, and how this registry deviates.

    ``mountable`` holds (repository, digest), None is a registry that never mounts. ``body_limit`` is what a proxy
    before it lets through. ``lose`` is how many bytes of the end of the next pieces do not arrive. ``shows_range`` is
    what Range says instead of the truth. ``elsewhere`` is put before the path of Locations. ``damages`` counts uploads
    that are going to be damaged on the way.
    """

    blobs: dict[str, bytes]
    manifests: dict[tuple[str, str], tuple[bytes, str]]
    open: dict[str, Upload] = field(default_factory=dict)
    mountable: set[tuple[str, str]] | None = field(default_factory=set)
    least: int = 0
    body_limit: int | None = None
    lose: list[int] = field(default_factory=list)
    shows_range: str | None = None
    elsewhere: str = ""
    knows_referrers: bool = False
    heeds_conditions: bool = True
    deletes: bool = True
    damages: int = 0
    begun: int = 0

    def reply(self, request: Request) -> Reply | None:
        """The answer to a request that changes something; None where it is not one."""
        query = dict(request.query)
        if self.body_limit is not None and len(request.body) > self.body_limit:
            return Reply(413, {}, b"<html>too large</html>")
        if request.method == "POST" and (begun := _BEGIN.fullmatch(request.path)):
            return self._begin(begun["repository"], query)
        if found := _UPLOAD.fullmatch(request.path):
            return self._upload(request, found["repository"], found["id"], query)
        if found := _MANIFEST.fullmatch(request.path):
            if request.method == "PUT":
                return self._put_manifest(request, found["repository"], found["name"])
            if request.method == "DELETE":
                return self._delete(found["repository"], found["name"])
        if (found := _REFERRERS.fullmatch(request.path)) and self.knows_referrers:
            return self._referrers(found["repository"], found["digest"])
        return None

    def arrived(self, request: Request, part: bytes) -> None:
        """Keep what came of a body whose connection broke."""
        if (found := _UPLOAD.fullmatch(request.path)) and found["id"] in self.open:
            self.open[found["id"]].data += part

    def _begin(self, repository: str, query: dict[str, str]) -> Reply:
        if self.mountable is not None and (query.get("from"), query.get("mount")) in self.mountable:
            return Reply(201, {"Location": f"/v2/{repository}/blobs/{query['mount']}"}, b"")
        self.begun += 1
        self.open[str(self.begun)] = Upload()
        reply = self._state(202, repository, str(self.begun))
        if self.least:
            reply.headers["OCI-Chunk-Min-Length"] = str(self.least)
        return reply

    def _state(self, status: int, repository: str, number: str) -> Reply:
        upload = self.open[number]
        upload.state += 1
        location = f"{self.elsewhere}/v2/{repository}/blobs/uploads/{number}?state={upload.state}"
        shown = f"0-{max(0, len(upload.data) - 1)}" if self.shows_range is None else self.shows_range
        return Reply(status, {"Location": location, "Range": shown}, b"")

    def _upload(self, request: Request, repository: str, number: str, query: dict[str, str]) -> Reply:
        upload = self.open.get(number)
        if upload is None:
            return _error(404, "BLOB_UPLOAD_UNKNOWN")
        if request.method == "GET":
            return self._state(204, repository, number)
        if request.method == "DELETE":
            del self.open[number]
            return Reply(204, {}, b"")
        if query.get("state") != str(upload.state):
            return _error(416, "BLOB_UPLOAD_INVALID")
        asked = request.headers.get("content-range")
        if request.method == "PATCH":
            if asked is not None and asked.partition("-")[0] != str(len(upload.data)):
                return _error(416, "BLOB_UPLOAD_INVALID")
            lost = self.lose.pop(0) if self.lose else 0
            upload.data += request.body[: len(request.body) - lost]
            return self._state(202, repository, number)
        upload.data += request.body
        if self.damages:
            self.damages -= 1
            upload.data[0] ^= 0xFF
        digest = query["digest"]
        algorithm = digest.partition(":")[0]
        if digest != f"{algorithm}:{hashlib.new(algorithm, upload.data).hexdigest()}":
            del self.open[number]
            return _error(400, "DIGEST_INVALID")
        self.blobs[digest] = bytes(upload.data)
        del self.open[number]
        headers = {"Location": f"/v2/{repository}/blobs/{digest}", "Docker-Content-Digest": digest}
        return Reply(201, headers, b"")

    def _put_manifest(self, request: Request, repository: str, name: str) -> Reply:
        before = self.manifests.get((repository, name))
        if self.heeds_conditions:
            if request.headers.get("if-none-match") == "*" and before is not None:
                return _error(412, "PRECONDITION_FAILED")
            wanted = request.headers.get("if-match")
            if wanted is not None and (before is None or wanted != etag(before[0])):
                return _error(412, "PRECONDITION_FAILED")
        raw = request.body
        digest = "sha256:" + hashlib.sha256(raw).hexdigest()
        if ":" in name and name != f"{name.partition(':')[0]}:{hashlib.new(name.partition(':')[0], raw).hexdigest()}":
            return _error(400, "DIGEST_INVALID")
        for each in (name, digest):
            self.manifests[repository, each] = raw, request.headers.get("content-type", "")
        headers = {"Location": f"/v2/{repository}/manifests/{digest}", "Docker-Content-Digest": digest}
        subject = json.loads(raw).get("subject")
        if subject is not None and self.knows_referrers:
            headers["OCI-Subject"] = subject["digest"]
        return Reply(201, headers, b"")

    def _referrers(self, repository: str, subject: str) -> Reply:
        """The list as a registry makes it: with what it knows of each manifest."""
        entries = {}
        for (at, _), (raw, media_type) in self.manifests.items():
            document = json.loads(raw)
            if at == repository and document.get("subject", {}).get("digest") == subject:
                digest = "sha256:" + hashlib.sha256(raw).hexdigest()
                entries[digest] = {
                    "mediaType": media_type,
                    "digest": digest,
                    "size": len(raw),
                    "artifactType": document.get("artifactType") or document.get("config", {}).get("mediaType"),
                }
        body = {"schemaVersion": 2, "mediaType": _OCI_INDEX, "manifests": [*entries.values()]}
        return Reply(200, {"Content-Type": _OCI_INDEX}, json.dumps(body).encode())

    def _delete(self, repository: str, name: str) -> Reply:
        if not self.deletes:
            return _error(405, "UNSUPPORTED")
        found = self.manifests.get((repository, name))
        if found is None:
            return _error(404, "MANIFEST_UNKNOWN")
        gone = [key for key, held in self.manifests.items() if key[0] == repository and held == found]
        for key in gone if ":" in name else [(repository, name)]:
            del self.manifests[key]
        return Reply(202, {}, b"")


def etag(raw: bytes) -> str:
    """The ETag of a document, quoted."""
    return f'"sha256:{hashlib.sha256(raw).hexdigest()}"'


def _error(code: int, name: str) -> Reply:
    body = json.dumps({"errors": [{"code": name, "message": name.lower().replace("_", " ")}]}).encode()
    return Reply(code, {"Content-Type": "application/json"}, body)
