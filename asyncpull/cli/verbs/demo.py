"""``asyncpull demo``: pull, mount and list, in a store of its own."""

from __future__ import annotations

import os
import stat
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from asyncpull.cli import namespace
from asyncpull.cli.formats import format_table, human_size
from asyncpull.cli.opening import registry_access, run_with_store
from asyncpull.cli.output import write_json, write_text
from asyncpull.cli.settings import Session, Settings, global_options
from asyncpull.cli.targets import settle
from asyncpull.cli.verbs.listing import show_images, show_layers
from asyncpull.cli.verbs.pull import pull_all, pulled_as_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from asyncpull.plan import PulledImage
    from asyncpull.registry.config import RegistryAccess
    from asyncpull.store.store import Store

# What a person can watch; the whole demo image takes a few seconds so.
_PACE = 6_000_000  # bytes per second


@click.command("demo")
@click.argument("references", metavar="[REF…]", nargs=-1)
@global_options
@click.pass_obj
def demo(session: Session, references: Sequence[str]) -> int:
    """Pull REFs, mount them and list what is in them.

    Without REF it is a small image that a registry in this process serves on loopback, somewhat slowly, to be watched.
    The store is .demo in this directory, unless --root and --runroot say otherwise.
    """
    settings = session.settings
    if settings.root is None:
        settings = replace(settings, root=".demo/storage", run_root=settings.run_root or ".demo/run")
    namespace.enter()

    async def work(store: Store) -> int:
        async with AsyncExitStack() as exits:
            access, wanted = registry_access(settings), list(references)
            if not references:
                wanted, access = await _serve_demo_image(store, access, exits)
            pulled, code = await _pull(store, wanted, access, settings)
            if settings.json:
                write_json([await _as_json(store, image) for image in pulled])
            elif pulled:
                for image in pulled:
                    await _show_tree(store, image)
                await _show_store(store, settings)
        return code

    return run_with_store(settings, work)


async def _serve_demo_image(
    store: Store, access: RegistryAccess, exits: AsyncExitStack
) -> tuple[list[str], RegistryAccess]:
    """Serve the image; remove the one that an earlier run left, so that there is something to see again."""
    from asyncpull.demo.image import REPOSITORY, TAG, demo_image
    from asyncpull.demo.registry import DemoRegistry

    image = demo_image()
    for record in await store.images():
        if any(f"/{REPOSITORY}:{TAG}" in name for name in record.names):
            await store.remove_image(record.id, force=True)
    registry = await exits.enter_async_context(DemoRegistry([image], bytes_per_second=_PACE))
    return [f"{registry.domain}/{REPOSITORY}:{TAG}"], replace(access, insecure=frozenset({registry.domain}))


async def _pull(
    store: Store, references: Sequence[str], access: RegistryAccess, settings: Settings
) -> tuple[list[PulledImage], int]:
    from asyncpull.cli.progress.choice import reporter_for
    from asyncpull.plan import PullPolicy
    from asyncpull.pull import Puller
    from asyncpull.spec.reference import parse_reference

    parsed = [parse_reference(text) for text in references]
    with reporter_for(settings) as reporter:
        async with Puller(store, access=access, reporter=reporter) as puller:
            outcomes = await pull_all(puller, parsed, PullPolicy.ALWAYS)
    return settle(map(str, parsed), outcomes)


async def _show_tree(store: Store, image: PulledImage) -> None:
    """Mount an image and list its root directory."""
    async with store.mounted(image.id) as root:
        write_text(f"\n{image.reference}, mounted read-only at {root}\n\n{_listing(root)}\n{_totals(root)}\n")
    write_text("and unmounted again\n")


async def _as_json(store: Store, image: PulledImage) -> dict[str, object]:
    async with store.mounted(image.id) as root:
        return pulled_as_json(image) | {"mounted": str(root), "entries": sorted(os.listdir(root))}


def _listing(directory: Path) -> str:
    """What ``ls -l`` shows of it."""
    rows = []
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        status = entry.stat(follow_symlinks=False)
        target = f" -> {os.readlink(entry.path)}" if entry.is_symlink() else ""
        size = str(status.st_size) if entry.is_file(follow_symlinks=False) else ""
        rows.append([stat.filemode(status.st_mode), f"{status.st_uid}:{status.st_gid}", size, entry.name + target])
    return format_table(["MODE", "OWNER", "SIZE", "NAME"], rows)


def _totals(root: Path) -> str:
    """How much is below ``root``, and a few of the things that are hard to get right."""
    files = directories = links = size = 0
    special: list[str] = []
    for parent, names, others in os.walk(root):
        directories += len(names)
        for name in others:
            status = os.lstat(os.path.join(parent, name))
            if stat.S_ISLNK(status.st_mode):
                links += 1
                continue
            files += 1
            size += status.st_size
            if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
                special.append(os.path.relpath(os.path.join(parent, name), root))
    text = f"{files} files ({human_size(size)}), {directories} directories, {links} symlinks"
    return text + (f"; setuid or setgid: {', '.join(sorted(special)[:5])}" if special else "")


async def _show_store(store: Store, settings: Settings) -> None:
    """List what the store has now, as ``asyncpull images`` and ``asyncpull layers`` do."""
    layers = await store.layers()
    plain = replace(settings, quiet=False)
    write_text(f"\nImages in {store.config.graph_root}\n\n")
    show_images(await store.images(), await store.image_sizes(), plain)
    write_text("\nLayers\n\n")
    show_layers(layers, plain)
