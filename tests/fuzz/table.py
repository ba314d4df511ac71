"""All targets, by name."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz import http1, layer, registry, spec, store, trust

if TYPE_CHECKING:
    from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    each.name: each
    for each in chain(spec.TARGETS, layer.TARGETS, http1.TARGETS, registry.TARGETS, store.TARGETS, trust.TARGETS)
}

FINDINGS = Path(__file__).with_name("findings")
"""What a fuzzer has found, ``TARGET/what-was-wrong``; every file is run by the tests for good."""


def findings_of(target: Target) -> list[Path]:
    """The inputs that have gone wrong once."""
    return sorted((FINDINGS / target.name).glob("*"))
