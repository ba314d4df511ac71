"""``asyncpull plan``: what a pull would do, and what it would cost, before any layer is asked for."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from asyncpull.cli import namespace
from asyncpull.cli.choosing import choose_all, first_of
from asyncpull.cli.formats import format_table, human_size, short_id
from asyncpull.cli.opening import platform_options, registry_access, run_with_store, trust_options, wanted_platform
from asyncpull.cli.output import write_json, write_text
from asyncpull.cli.settings import Session, global_options
from asyncpull.cli.targets import settle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpull.estimate import LayerEstimate, PullEstimate
    from asyncpull.store.store import Store

_HEADINGS = ("LAYER", "WILL", "SIZE", "TO FETCH", "TO RESUME", "ON DISK", "INODES", "ON DISK IS")


@click.command("plan")
@click.argument("references", metavar="REF…", nargs=-1, required=True)
@platform_options
@global_options
@click.pass_obj
def plan(session: Session, /, references: Sequence[str], **platform: str | None) -> int:
    """Show which layers a pull would reuse, copy and fetch, and what it would cost.

    Bytes over the network are exact; what compressed layers take on the disk is estimated, on the basis that is shown.
    """
    from asyncpull.spec.reference import parse_reference

    wanted = wanted_platform(platform)
    for text in references:
        parse_reference(text)  # what cannot be meant is told before anything is asked
    settings = session.settings
    namespace.enter()
    choices = choose_all(references, settings)

    async def work(store: Store) -> int:
        from asyncpull.pull import Puller

        access, trust = registry_access(settings), trust_options(settings)
        async with Puller(store, platform=wanted, access=access, trust=trust) as puller:
            # A plan changes nothing, so what was chosen for it is not recorded either.
            plans = (first_of(replace(choice, record=None), puller.plan) for choice in choices)
            outcomes = await asyncio.gather(*plans, return_exceptions=True)
        estimates, code = settle(references, outcomes)
        if settings.json:
            write_json(plans_as_json(estimates))
        elif estimates:
            write_text(plans_as_text(estimates))
        return code

    return run_with_store(settings, work)


def plans_as_json(estimates: Sequence[PullEstimate]) -> dict[str, object]:
    """The object that ``--json`` prints: the cost of all together, and each image with its layers."""
    from asyncpull.estimate import total_cost

    return {**asdict(total_cost(estimates)), "images": [_image_as_json(estimate) for estimate in estimates]}


def _image_as_json(estimate: PullEstimate) -> dict[str, object]:
    image = estimate.plan.image
    return {
        "reference": str(image.reference),
        "id": image.id,
        "digest": str(image.digest),
        "bytes_to_fetch": estimate.bytes_to_fetch,
        "bytes_to_resume": estimate.bytes_to_resume,
        "bytes_reused": estimate.bytes_reused,
        "disk_bytes": estimate.disk_bytes,
        "inodes": estimate.inodes,
        "spool_bytes": estimate.spool_bytes,
        "counted_requests": estimate.counted_requests,
        "layers": [
            {
                "id": layer.step.id,
                "digest": str(layer.step.blob.digest),
                "diff_id": str(layer.step.diff_id),
                "size": layer.step.blob.size,
                "action": layer.step.action.value,
                "bytes_to_fetch": layer.bytes_to_fetch,
                "bytes_to_resume": layer.bytes_to_resume,
                "disk_bytes": layer.disk_bytes,
                "inodes": layer.inodes,
                "basis": layer.basis,
            }
            for layer in estimate.layers
        ],
    }


def plans_as_text(estimates: Sequence[PullEstimate]) -> str:
    """A table per image, with its total; and what all cost together, where there are several."""
    from asyncpull.estimate import BYTES_PER_INODE, total_cost

    parts = [_image_as_text(estimate) for estimate in estimates]
    total = total_cost(estimates)
    if len(estimates) > 1:
        parts.append(
            f"All together, what they share once: {human_size(total.bytes_to_fetch)} to fetch, "
            f"{human_size(total.bytes_to_resume)} to resume, about {human_size(total.disk_bytes)} and {total.inodes} "
            "inodes on disk.\n"
        )
    parts.append(
        f"Inodes are estimated: one for {human_size(BYTES_PER_INODE)}, as mke2fs makes them.\n"
        f"Requests that count against a rate limit: {total.counted_requests}, and as many for this plan.\n"
    )
    return "\n".join(parts)


def _image_as_text(estimate: PullEstimate) -> str:
    image = estimate.plan.image
    rows = [_row(layer) for layer in estimate.layers]
    sizes = (sum(layer.step.blob.size for layer in estimate.layers), estimate.bytes_to_fetch, estimate.bytes_to_resume)
    rows.append(["total", "", *map(human_size, (*sizes, estimate.disk_bytes)), str(estimate.inodes), ""])
    return f"{image.reference}\n{image.digest}\n\n{format_table(_HEADINGS, rows)}"


def _row(layer: LayerEstimate) -> list[str]:
    return [
        short_id(str(layer.step.blob.digest)),
        layer.step.action.value,
        human_size(layer.step.blob.size),
        human_size(layer.bytes_to_fetch),
        human_size(layer.bytes_to_resume),
        human_size(layer.disk_bytes),
        str(layer.inodes),
        layer.basis,
    ]
