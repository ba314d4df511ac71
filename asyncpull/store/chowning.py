"""A copy of a layer with other owners, for kernels and drivers that cannot map them at a mount (format, section 8.3).

A layered driver makes it through a mount of the layer below an empty writable one: a file is copied up when it is
given its new owner. That mount is made in a child process with a mount namespace of its own, so that nobody sees it,
and it is gone when the child is, however that ends.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

from asyncpull import kernel
from asyncpull.errors import AsyncpullError, StoreError
from asyncpull.store.driver import MountPlan
from asyncpull.store.idmap import IDMappings, format_raw, moved, parse_raw
from asyncpull.store.mounting import perform
from asyncpull.tree.owners import change_owners


def chown_tree(tree: Path, old: IDMappings, new: IDMappings) -> None:
    """Give everything below ``tree`` the owners of ``new`` mappings instead of those of ``old`` ones. Slow.

    Raises StoreError.
    """
    try:
        change_owners(tree, functools.partial(moved, old=old, new=new))
    except (OSError, LookupError) as error:
        raise StoreError(f"files cannot be given other owners: {error}", str(tree)) from error


def chown_mounted(plan: MountPlan, old: IDMappings, new: IDMappings) -> None:
    """Mount ``plan``, unseen, and give everything in it other owners; the copies are in its upper directory. Slow.

    Raises StoreError.
    """
    request = {
        "target": os.fspath(plan.target),
        "lowers": [os.fspath(lower) for lower in plan.lowers],
        "upper": os.fspath(plan.upper or ""),
        "work": os.fspath(plan.work or ""),
        "options": list(plan.options),
        "context": plan.context,
        "maps": [format_raw(maps) for maps in (old.uids, old.gids, new.uids, new.gids)],
    }
    child = subprocess.run(
        [sys.executable, "-P", "-m", "asyncpull.store.chowning"],
        input=json.dumps(request).encode(),
        capture_output=True,
        check=False,
    )
    if child.returncode != 0:
        said = (child.stdout or child.stderr[-500:]).decode(errors="replace").strip()
        raise StoreError(
            f"a copy with other owners cannot be made: {said}",
            os.fspath(plan.target),
            "in a user namespace only the IDs of /proc/self/uid_map can be mapped further",
        )


def _child() -> int:
    request = json.loads(sys.stdin.buffer.read())
    plan = MountPlan(
        target=Path(request["target"]),
        lowers=tuple(map(Path, request["lowers"])),
        upper=Path(request["upper"]),
        work=Path(request["work"]),
        options=tuple(request["options"]),
        context=request["context"],
    )
    uids, gids, new_uids, new_gids = map(parse_raw, request["maps"])
    try:
        kernel.end_with_parent()
        kernel.leave_mount_namespace()
        perform(plan)
        chown_tree(plan.target, IDMappings(uids, gids), IDMappings(new_uids, new_gids))
    except (OSError, AsyncpullError) as error:
        sys.stdout.write(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_child())
