"""Where images come from, one module per transport; the protocol is ``asyncpull.spec.source``."""
