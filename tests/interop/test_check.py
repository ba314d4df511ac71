"""Our check beside podman's: silent on what podman wrote, and of one mind about damage and about repairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.images import image
from tests.support.odd_layers import ACCEPTED, BETTER
from tests.support.samples import base_layer, odd_layer, removing_layer, rich_image

if TYPE_CHECKING:
    from tests.support.docker_registry import Registry
    from tests.support.stores import SharedStore

pytestmark = pytest.mark.root

# Of these podman itself keeps what it cannot export again.
_SOUND = [layer for name, layer in ACCEPTED.items() if name not in BETTER]


def test_silent_on_what_podman_wrote(store: SharedStore, registry: Registry) -> None:
    odd = image([base_layer(), *_SOUND, odd_layer(), removing_layer()], comment="sound")
    store.podman_pull(registry.push("check/rich", "1", rich_image()))
    store.podman_pull(registry.push("check/odd", "1", odd))
    name = store.podman("create", "--network", "none", odd.id, "sh")
    store.podman("mount", name)

    assert store.asyncpull("check") == ""

    store.podman("unmount", name)
    store.podman("rm", name)
    assert store.asyncpull("check", "--max", "0s") == ""
