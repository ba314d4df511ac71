"""Pull container images into a containers/storage store, from asyncio.

::

    async with asyncpull.Store.open() as store, asyncpull.Puller(store) as puller:
        image = await puller.pull("docker.io/library/alpine:3.20")
        async with store.mounted(image.id) as rootfs:
            print((rootfs / "etc/alpine-release").read_text())

Names are resolved when they are first used (PEP 562): a worker process that imports one submodule does not pay for
the HTTP client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncpull.access import Access
    from asyncpull.copy import Copier
    from asyncpull.copying.image import CopiedImage
    from asyncpull.copying.plan import CopyOptions, Instances, ManifestFormat, Selection
    from asyncpull.errors import AsyncpullError
    from asyncpull.estimate import PullEstimate
    from asyncpull.events import EventStream
    from asyncpull.layer.ceilings import Ceilings
    from asyncpull.layer.codec import Compression
    from asyncpull.limits import Limits
    from asyncpull.lockfile import LockWait, hearing_waits
    from asyncpull.plan import PulledImage, PulledLayer, PullPlan, PullPolicy
    from asyncpull.prefetch import Prefetched, PrefetchSummary
    from asyncpull.progress import Event, Reporter
    from asyncpull.pull import Puller
    from asyncpull.registry.config import RegistryAccess
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.location import parse_location
    from asyncpull.spec.platform import Platform, parse_platform
    from asyncpull.spec.reference import Reference, parse_reference
    from asyncpull.store.check.findings import CheckReport, Damage, Finding, Remedy
    from asyncpull.store.config import StoreConfig
    from asyncpull.store.containercommit import CommitOptions
    from asyncpull.store.sizes import ImageSize
    from asyncpull.store.store import Store
    from asyncpull.tree.changes import Change, ChangeKind
    from asyncpull.trust.policyfile import TrustOptions
    from asyncpull.trust.signing import Signing

__version__ = "0.1.0"

__all__ = [
    "Access",
    "AsyncpullError",
    "Ceilings",
    "Change",
    "ChangeKind",
    "CheckReport",
    "CommitOptions",
    "Compression",
    "ContainerSpec",
    "CopiedImage",
    "Copier",
    "CopyOptions",
    "Damage",
    "Digest",
    "Event",
    "EventStream",
    "Finding",
    "ImageSize",
    "Instances",
    "Limits",
    "LockWait",
    "ManifestFormat",
    "MountRequest",
    "Platform",
    "PrefetchSummary",
    "Prefetched",
    "PullEstimate",
    "PullPlan",
    "PullPolicy",
    "PulledImage",
    "PulledLayer",
    "Puller",
    "Reference",
    "RegistryAccess",
    "Remedy",
    "Reporter",
    "Selection",
    "Signing",
    "Store",
    "StoreConfig",
    "TrustOptions",
    "hearing_waits",
    "parse_location",
    "parse_platform",
    "parse_reference",
]

_HOMES = {
    "Access": "access",
    "AsyncpullError": "errors",
    "Ceilings": "layer.ceilings",
    "Change": "tree.changes",
    "ChangeKind": "tree.changes",
    "CheckReport": "store.check.findings",
    "CommitOptions": "store.containercommit",
    "Compression": "layer.codec",
    "ContainerSpec": "store.containers",
    "CopiedImage": "copying.image",
    "Copier": "copy",
    "CopyOptions": "copying.plan",
    "Damage": "store.check.findings",
    "Digest": "spec.digest",
    "Event": "progress",
    "EventStream": "events",
    "Finding": "store.check.findings",
    "ImageSize": "store.sizes",
    "Instances": "copying.plan",
    "Limits": "limits",
    "LockWait": "lockfile",
    "ManifestFormat": "copying.plan",
    "MountRequest": "store.mounts",
    "Platform": "spec.platform",
    "PrefetchSummary": "prefetch",
    "Prefetched": "prefetch",
    "PullEstimate": "estimate",
    "PullPlan": "plan",
    "PullPolicy": "plan",
    "PulledImage": "plan",
    "PulledLayer": "plan",
    "Puller": "pull",
    "Reference": "spec.reference",
    "RegistryAccess": "registry.config",
    "Remedy": "store.check.findings",
    "Reporter": "progress",
    "Selection": "copying.plan",
    "Signing": "trust.signing",
    "Store": "store.store",
    "StoreConfig": "store.config",
    "TrustOptions": "trust.policyfile",
    "hearing_waits": "lockfile",
    "parse_location": "spec.location",
    "parse_platform": "spec.platform",
    "parse_reference": "spec.reference",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
