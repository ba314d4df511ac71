"""The plan of a pull: reuse, copy or fetch, per layer."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from asyncpull.errors import DocumentError, TooManyLayersError
from asyncpull.plan import MAX_LAYERS, LayerAction, ResolvedImage, plan_pull
from asyncpull.spec import mediatype
from asyncpull.spec.digest import Digest
from asyncpull.spec.layerid import layer_ids
from asyncpull.spec.manifest import Descriptor, ImageConfig, Manifest
from asyncpull.spec.platform import Platform
from asyncpull.spec.reference import parse_reference


@dataclass
class Shelf:
    """A store that has these layers."""

    ids: set[str] = field(default_factory=set)
    diff_ids: dict[Digest, str] = field(default_factory=dict)

    def has_layer(self, layer_id: str) -> bool:
        return layer_id in self.ids

    def layer_with_diff_id(self, diff_id: Digest) -> str | None:
        return self.diff_ids.get(diff_id)


def image(*layers: str, config_layers: int | None = None) -> ResolvedImage:
    blobs = tuple(Descriptor(mediatype.OCI_LAYER, Digest.of(name.encode()), len(name)) for name in layers)
    diff_ids = tuple(Digest.of(b"tar of " + name.encode()) for name in layers)[:config_layers]
    config = ImageConfig(b"{}", Digest.of(b"{}"), diff_ids, None, Platform("linux", "amd64"))
    manifest = Manifest(b"", mediatype.OCI_MANIFEST, Digest.of(b""), Descriptor("c", config.digest, 2), blobs)
    return ResolvedImage(parse_reference("q.io/a"), None, manifest, config)


def test_layer_ids_are_those_podman_gives() -> None:
    """The chain in section 14 of the format: sha256 over parent ID, a plus sign and the diff ID in hex."""
    first, second = Digest.of(b"1"), Digest.of(b"2")
    assert layer_ids([first, second]) == (
        first.encoded,
        Digest.of(f"{first.encoded}+{second.encoded}".encode()).encoded,
    )


def test_an_empty_store_fetches_all() -> None:
    plan = plan_pull(image("aa", "bbb", "aa"), Shelf())
    assert [step.action for step in plan.steps] == [LayerAction.FETCH] * 3
    assert [step.parent for step in plan.steps] == [None, plan.steps[0].id, plan.steps[1].id]
    assert plan.bytes_to_fetch == 5  # a blob wanted twice is fetched once


def test_reuse_and_copy() -> None:
    wanted = image("a", "b", "c")
    ids = layer_ids(wanted.config.diff_ids)
    plan = plan_pull(wanted, Shelf({ids[0]}, {wanted.config.diff_ids[2]: "elsewhere"}))
    assert [step.action for step in plan.steps] == [LayerAction.REUSE, LayerAction.FETCH, LayerAction.COPY]
    assert plan.steps[2].copy_from == "elsewhere"
    assert plan.having(LayerAction.REUSE) == (plan.steps[0],)


def test_manifest_and_config_must_agree() -> None:
    with pytest.raises(DocumentError, match="the manifest lists 2 layers, the config 1"):
        plan_pull(image("a", "b", config_layers=1), Shelf())


def test_the_limit_of_layers() -> None:
    names = [str(n) for n in range(MAX_LAYERS + 1)]
    assert len(plan_pull(image(*names[:-1]), Shelf()).steps) == MAX_LAYERS
    with pytest.raises(TooManyLayersError, match="501 layers"):
        plan_pull(image(*names), Shelf())


def test_an_image_without_layers() -> None:
    assert plan_pull(image(), Shelf()).steps == ()
