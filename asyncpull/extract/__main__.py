"""What makes a process the nursery (``nursery.py``): it is run by its path, with FD.

A pull waits for that. ``-m`` would import ``runpy`` for its own use, and the collector would go through what is
imported, of which nothing is to be freed: together a tenth of the start.
"""

from __future__ import annotations

import gc
import os

if __name__ == "__main__":
    gc.disable()
    from asyncpull.extract.nursery import main

    main()
    os._exit(0)  # somebody waits for the end, and there is nothing to be taken down in order
