"""Where images go: one file per transport, behind the protocol of ``spec.destination``."""
