"""Keeping a store sound: the part of its public face that checks, repairs and tidies up.

What does that is imported when it is called: a pull opens a store too, and needs none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.store.check import DAY_SECONDS
from asyncpull.store.mounter import Mounter

if TYPE_CHECKING:
    from asyncpull.store.check.contents import Compared
    from asyncpull.store.check.findings import CheckReport, Finding


class Upkeep(Mounter):
    """What can be done for the health of an open store."""

    async def check(
        self,
        *,
        full: bool = True,
        repair: bool = False,
        force: bool = False,
        max_age_seconds: float = DAY_SECONDS,
    ) -> CheckReport:
        """Look for damage; every finding is data. ``full`` reads every byte of every layer, which takes its time.

        A layer that nobody needs counts as damage when it is older than ``max_age_seconds``. ``repair`` makes anew
        what can be made anew, and removes what is damaged beyond that with what stands on it; containers only with
        ``force``, and never one that podman runs. What somebody makes or removes meanwhile is no damage.

        Takes all locks of records, shared, for the time of reading records and directories, and none while content is
        read. A repair takes them exclusively, storage.lock too if a mount count is wrong; nothing is read or deleted
        under them but small files. Raises StoreError where a file system fails, StoreWriteError, which is also for a
        rootless store outside of its user namespace, unless it is but a quick look, NoSpaceError.
        """
        from asyncpull.store.check.checking import CheckOptions, check, check_and_repair

        if full or repair:
            self.config.require_trees()
        options = CheckOptions(full, max_age_seconds, self._compared())
        if repair:
            return await check_and_repair(self._sections, options, force=force)
        return await check(self._sections, options)

    async def gc(self, *, dry_run: bool = False, max_age_seconds: float = DAY_SECONDS) -> tuple[Finding, ...]:
        """Remove what nobody accounts for, and layers that nobody needs and are older than ``max_age_seconds``.

        That is: trees and data without a record, what programs left when they died, abandoned locks. Returns what that
        was, ``is_repaired`` true for what is gone; with ``dry_run`` nothing is changed. Spools of downloads are not
        looked at: see ``Fetcher.sweep``.

        Takes all locks of records, shared, then exclusively if there is something; trees are deleted after them.
        Raises StoreError, StoreWriteError, NoSpaceError.
        """
        from asyncpull.store.check.checking import CheckOptions, collect_garbage

        if not dry_run:
            self.config.require_trees()
        options = CheckOptions(is_full=False, max_age_seconds=max_age_seconds)
        return await collect_garbage(self._sections, self._private, options, dry_run=dry_run)

    def _compared(self) -> Compared:
        from asyncpull.store.check.contents import Compared

        config = self.config
        is_masked = bool(config.options.get("force_mask"))
        return Compared(
            owners=not (config.ignore_chown_errors or is_masked),
            modes=not is_masked,
            devices=not config.rootless,
            privileged_xattrs=not config.rootless,
        )
