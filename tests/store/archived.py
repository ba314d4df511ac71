"""Images made from tar archives, layer by layer, as a pull makes them; for tests that need the whole of a layer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from asyncpull.extract.apply import ApplyOptions, apply_layer
from asyncpull.spec.digest import Digest
from asyncpull.spec.layerid import layer_id
from asyncpull.store.staging import NewImage, NewLayer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpull.store.store import Store
    from asyncpull.store.views import ImageRecord

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


async def put_archives(store: Store, archives: Sequence[bytes], *names: str, **config: object) -> ImageRecord:
    """Commit an image of these layers, the base layer first; ``config`` are members of its configuration."""
    async with store.stage() as staging:
        layers: list[NewLayer] = []
        parent, below = None, None
        for archive in archives:
            staged = await store.new_layer(staging, parent, below)
            staged.copy_base(in_userns=False)
            with staged.tar_split.open("wb") as split:
                applied = apply_layer([archive], staged.diff, split.write, ApplyOptions(store.marks))
            digest = Digest.of(archive)
            own = layer_id(parent, digest)
            owners = {"uidset": applied.uidset, "gidset": applied.gidset}
            layers.append(NewLayer(own, parent, staged, digest, len(archive), digest, len(archive), 0, **owners))
            parent, below = own, staged
        document = json.dumps(
            {
                "created": "2024-01-02T03:04:05Z",
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_digest) for layer in layers]},
                "history": [{"created_by": "made"} for _ in layers],
            }
            | config
        ).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": OCI_CONFIG, "digest": str(Digest.of(document)), "size": len(document)},
                "layers": [
                    {"mediaType": OCI_LAYER, "digest": str(layer.diff_digest), "size": layer.diff_size}
                    for layer in layers
                ],
            }
        ).encode()
        image = NewImage(
            id=Digest.of(document).encoded,
            digest=Digest.of(manifest),
            names=names,
            layers=tuple(layers),
            big_data=(
                (str(Digest.of(document)), document),
                (f"manifest-{Digest.of(manifest)}", manifest),
                ("manifest", manifest),
            ),
        )
        return await store.commit(staging, image)
