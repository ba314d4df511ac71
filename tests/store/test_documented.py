"""Whoever uses a store reads, at each method, what is raised and which locks are held."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING

import pytest

from asyncpull.store.sizes import ImageSize
from asyncpull.store.snapshot import StoreStatus
from asyncpull.store.store import Store
from asyncpull.store.views import LayerRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _awaited() -> Iterator[tuple[str, Callable[..., object]]]:
    """The public methods that are awaited, entered or iterated: those that do something."""
    for name, value in inspect.getmembers(Store):
        function = inspect.unwrap(getattr(value, "__func__", value))
        if not name.startswith("_") and (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)):
            yield name, function


METHODS = dict(_awaited())


def test_these_are_the_methods() -> None:
    assert {"open", "stage", "commit", "mount", "mounted", "layers", "image_sizes", "check", "gc"} <= METHODS.keys()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_raises_and_what_it_locks(name: str) -> None:
    text = " ".join((inspect.getdoc(METHODS[name]) or "").split())
    assert "Raises " in text, f"{name} does not say what it raises"
    assert "lock" in text, f"{name} does not say which locks it takes"


@pytest.mark.parametrize("name", METHODS)
def test_a_time_or_a_size_has_its_unit_in_its_name(name: str) -> None:
    numbers = {
        parameter.name
        for parameter in inspect.signature(METHODS[name]).parameters.values()
        if parameter.annotation in ("int", "float", "int | None", "float | None")
    }
    assert all(number.endswith(("_seconds", "_bytes", "_count")) for number in numbers), numbers


@pytest.mark.parametrize("kind", [LayerRecord, StoreStatus, ImageSize])
def test_a_value_with_sizes_says_their_unit(kind: type) -> None:
    assert dataclasses.is_dataclass(kind)
    assert "bytes" in (kind.__doc__ or "").lower()
