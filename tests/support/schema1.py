"""Manifests of Docker's schema 1, as old registries have them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.images import Image

EMPTY = gzip.compress(bytes(1024), mtime=0)
"""The blob of a layer that changes nothing."""


def as_schema1(image: Image) -> bytes:
    """An unsigned manifest of an image, with a throwaway layer on top."""
    blobs = [*(blob.digest for blob in image.layers), "sha256:" + hashlib.sha256(EMPTY).hexdigest()]
    history: list[dict[str, object]] = []
    for number, _ in enumerate(blobs):
        entry: dict[str, object] = {
            "id": f"{number + 1:064x}",
            "created": "2023-11-14T22:13:20.5Z",
            "container_config": {"Cmd": [f"layer {number}"]},
        }
        if number:
            entry["parent"] = f"{number:064x}"
        history.append(entry)
    config = json.loads(image.config.data)
    history[-1] |= {key: config[key] for key in ("config", "architecture", "os")} | {"throwaway": True}
    document = {
        "schemaVersion": 1,
        "name": "a/b",
        "tag": "1",
        "architecture": "amd64",
        "fsLayers": [{"blobSum": digest} for digest in reversed(blobs)],
        "history": [{"v1Compatibility": json.dumps(entry)} for entry in reversed(history)],
    }
    return json.dumps(document, indent=3).encode()


def signed(manifest: bytes, key: str = "key") -> bytes:
    """The manifest with a signature, which nobody can verify, as ``docker push`` put it there."""
    body, tail = manifest[:-2], manifest[-2:]
    protected = json.dumps({"formatLength": len(body), "formatTail": _encoded(tail), "time": "2014-01-01T00:00:00Z"})
    signature = {
        "header": {"jwk": {"kty": "EC", "kid": key}, "alg": "ES256"},
        "signature": _encoded(b"made for one push"),
        "protected": _encoded(protected.encode()),
    }
    return body + b',\n   "signatures": ' + json.dumps([signature]).encode() + tail


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
