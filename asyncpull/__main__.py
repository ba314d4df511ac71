"""``python -m asyncpull`` is the command."""

from __future__ import annotations

import sys

from asyncpull.cli import script

sys.exit(script())
