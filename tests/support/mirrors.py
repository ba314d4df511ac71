"""A registries.conf for a registry with mirrors."""

from __future__ import annotations


def configuration(prefix: str, *mirrors: str) -> str:
    """What the file says; a mirror is a location and, behind a space, what it is asked for."""
    lines = ["[[registry]]", f'prefix = "{prefix}"', f'location = "{prefix}"']
    for mirror in mirrors:
        location, _, pull = mirror.partition(" ")
        lines += ["[[registry.mirror]]", f'location = "{location}"', f'pull-from-mirror = "{pull or "all"}"']
    return "\n".join(lines) + "\n"
