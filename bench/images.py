"""The images that pulls are measured with: their layers are built once below the work directory, then pushed."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.inputs import inputs_of, pins
from bench.layers import Layer, build_layer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.inputs import Input
    from bench.layers import Compression
    from bench.recipes import Recipe
    from bench.scenarios import Scenario
    from tests.support.docker_registry import Registry

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_FORMAT = 2
"""Raised whenever the same recipe is to give other bytes, so that layers of an older program are built anew."""


@dataclass(frozen=True, slots=True)
class BenchImage:
    """An image, whose layers are on disk."""

    name: str
    config: bytes
    manifest: bytes
    layers: tuple[Layer, ...]

    @property
    def digest(self) -> str:
        return _sha256(self.manifest)


@dataclass(frozen=True, slots=True)
class Facts:
    """What results say of a workload: its images by digest, and how much of everything there is in them.

    ``files`` are those that a store gets; ``stand_ins`` names packages that could not be had.
    """

    name: str
    says: str
    digests: tuple[str, ...]
    layers: int
    blob_size: int
    unpacked_size: int
    entries: int
    files: int
    stand_ins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """The images of a scenario. Sizes are in bytes."""

    name: str
    images: tuple[BenchImage, ...]
    says: str = ""

    @property
    def files(self) -> int:
        """How many regular files a store gets, once for each stack of layers below."""
        return sum(stack[-1].files for stack in self._stacks)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer once, however many images have it."""
        return tuple({layer.digest: layer for image in self.images for layer in image.layers}.values())

    @property
    def blob_size(self) -> int:
        """The size of all layers and configs, each blob once: the least that has to be fetched for all images."""
        return sum(layer.size for layer in self.layers) + sum(
            {image.digest: len(image.config) for image in self.images}.values()
        )

    @property
    def unpacked_size(self) -> int:
        """What a store unpacks: a layer once for each stack of layers below it."""
        return sum(stack[-1].unpacked_size for stack in self._stacks)

    @property
    def _stacks(self) -> set[tuple[Layer, ...]]:
        return {image.layers[:height] for image in self.images for height in range(1, len(image.layers) + 1)}

    @property
    def facts(self) -> Facts:
        return Facts(
            self.name,
            self.says,
            tuple(image.digest for image in self.images),
            len(self.layers),
            self.blob_size,
            sum(layer.unpacked_size for layer in self.layers),
            sum(layer.entries for layer in self.layers),
            self.files,
            tuple(name for layer in self.layers for name in layer.stand_ins),
        )


def build_workload(scenario: Scenario, work: Path) -> Workload:
    """Build the images of a scenario below ``work``, or find their layers there from an earlier run."""
    recipes = dict.fromkeys(recipe for image in scenario.images for recipe in image)
    (work / "layers").mkdir(parents=True, exist_ok=True)
    known = pins()
    inputs = {recipe: inputs_of(recipe, work / "inputs", known) for recipe in recipes}

    def build(recipe: Recipe) -> Layer:
        return _build_layer(recipe, inputs[recipe], work, scenario.compression)

    with ThreadPoolExecutor(2) as pool:
        built = dict(zip(recipes, pool.map(build, recipes), strict=True))
    images = [
        _assemble(f"{scenario.name}-{number:02}", tuple(built[recipe] for recipe in image))
        for number, image in enumerate(scenario.images)
    ]
    return Workload(scenario.name, tuple(images), scenario.says)


def push_image(image: BenchImage, registry: Registry) -> str:
    """Upload an image; return its repository and tag."""
    repository = f"bench/{image.name}"
    for layer in image.layers:
        with layer.path.open("rb") as data:
            registry.upload(repository, layer.digest, layer.size, data)
    registry.upload(repository, _sha256(image.config), len(image.config), image.config)
    registry.put_manifest(repository, "latest", image.manifest, _MANIFEST)
    return f"{repository}:latest"


def _build_layer(recipe: Recipe, inputs: Sequence[Input], work: Path, compression: Compression) -> Layer:
    files = [(each.pin.sha256, each.path is not None) for each in inputs]
    name = _sha256(repr((_FORMAT, recipe, files, compression)).encode())[7:19]
    path = work / "layers" / f"{name}.tar.{compression}"
    record = path.with_suffix(".json")
    if not record.exists():
        record.write_text(json.dumps(build_layer(recipe, inputs, path, compression).as_json(), indent=1))
    fields = json.loads(record.read_text())
    return Layer(**(fields | {"path": path, "stand_ins": tuple(fields["stand_ins"])}))


def _assemble(name: str, layers: tuple[Layer, ...]) -> BenchImage:
    config = _json(
        {
            "created": "2023-11-14T22:13:20Z",
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/bash"], "Labels": {"name": name}},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    )
    descriptors = [
        {"mediaType": f"{_LAYER}+{layer.compression}", "digest": layer.digest, "size": layer.size} for layer in layers
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": _sha256(config), "size": len(config)},
        "layers": descriptors,
    }
    return BenchImage(name, config, _json(manifest), layers)


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
