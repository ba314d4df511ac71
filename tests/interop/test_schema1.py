"""Images of Docker's schema 1 that skopeo pushed to a real registry: we and podman make the same image of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.images import Blob, image
from tests.support.samples import base_layer
from tests.support.tars import file, tar

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.docker_registry import Registry
    from tests.support.peers import Peer
    from tests.support.stores import SharedStore

pytestmark = pytest.mark.root


def test_same_image_as_podman_makes(peer: Peer, new_store: Callable[[str], SharedStore], registry: Registry) -> None:
    made = image([base_layer(), tar([file("second", b"2" * 5000)])], flavour="docker")
    config = json.loads(made.config.data)
    config["history"].insert(1, {"created": "2023-11-14T22:13:20.500Z", "created_by": "ENV <&>", "empty_layer": True})
    config |= {"docker_version": "20.10.1", "x-unknown": {"b": 1, "a": [2]}}
    blob = Blob(made.config.media_type, json.dumps(config).encode())
    manifest = {**json.loads(made.manifest.data), "config": blob.descriptor()}
    made = replace(made, config=blob, manifest=Blob(made.manifest.media_type, json.dumps(manifest).encode()))
    source = registry.push("schema2/image", "1", made)
    reference = f"{registry.address}/schema1/{peer.name}:1"
    peer.run(
        *("skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format", "v2s1"),
        *(f"docker://{source}", f"docker://{reference}"),
    )
    ours, theirs = new_store("ours"), new_store("theirs")
    image_id = ours.pull(reference)
    assert image_id == theirs.podman_pull(reference)
    # The digest is the one that the registry gives the original; of diff IDs podman's own image knows none.
    (listed,) = json.loads(ours.podman("images", "--format", "json", "--digests"))
    (known,) = json.loads(theirs.podman("images", "--format", "json", "--digests"))
    assert listed["Digest"] == known["Digest"]
    layers = json.loads(ours.podman("image", "inspect", "--format", "{{json .RootFS.Layers}}", image_id))
    assert layers == list(made.diff_ids)
    ours.check()
    # In a store of podman's nothing is fetched again.
    before = len(registry.requests())
    assert theirs.pull(reference) == image_id
    assert not [request for request in registry.requests()[before:] if "/blobs/" in request]
