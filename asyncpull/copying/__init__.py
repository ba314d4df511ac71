"""The parts of a copy, in the order that ``asyncpull.copy`` knows: judged, planned, moved, made anew, remembered."""
