"""Checking a store against its own records and digests, and repairing what can be repaired.

::

    findings    what is wrong, as values
    inventory   what the records say and which files there are, at one moment
    records     rules about records among each other
    overlay     rules about the files with which overlay stacks layers
    data        rules about big data: presence, size, digest, an image's config
    lent        the same rules for what other stores lend
    archive     a layer's tar stream, rebuilt and read
    expected    the tree that the members of a layer make
    contents    a tree against what is expected of it
    full        reading every layer, several at once
    mend        making a tree again what its archive says
    repair      what becomes of all other findings
    checking    the order of all this, and where it runs

Locks are held for an inventory only, shared. Everything is looked at without a lock, so that what somebody removes or
makes meanwhile looks like damage; hence findings count only if a second inventory still has what they are about.
"""

from __future__ import annotations

DAY_SECONDS = 86400
"""How old a layer that nobody needs may be, unless somebody says otherwise: the next pull may want it."""
