"""Rules about the files that stack layers, from values: what no store of a test's size can show."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpull.store.check.findings import Damage, Remedy
from asyncpull.store.check.inventory import Inventory
from asyncpull.store.check.overlay import StackFiles, check_stack
from asyncpull.store.views import LayerRecord

HOME = Path("/g/overlay")


@pytest.mark.parametrize(("below", "found"), [(500, []), (501, [Damage.TOO_MANY_LAYERS])])
def test_a_layer_on_more_layers_than_anybody_mounts(below: int, found: list[Damage]) -> None:
    ids = [f"{number:064x}" for number in range(below + 1)]
    links = dict(zip(ids, (f"{number:026d}" for number in range(below + 1)), strict=True))
    layers, stack = {}, {}
    for number, layer_id in enumerate(ids):
        lower = ids[:number][::-1]
        raw: dict[str, object] = {
            "id": layer_id,
            "created": "2026-01-01T00:00:00Z",
            **({"parent": lower[0]} if lower else {}),
        }
        layers[layer_id] = LayerRecord.from_raw(raw, False)
        parts = frozenset(("diff", "work", "merged", *(() if lower else ("empty",))))
        names = ":".join(f"l/{links[each]}" for each in lower)
        stack[layer_id] = StackFiles(HOME / layer_id, links[layer_id], names, ":".join(lower), parts)
    short_names = {link: f"../{layer_id}/diff" for layer_id, link in links.items()}

    findings = check_stack(Inventory(layers, {}, {}, ()), stack, short_names, {})

    assert [finding.damage for finding in findings] == found
    assert all(finding.id == ids[-1] and finding.remedy is Remedy.NONE for finding in findings)
