"""Identifiers and documents of the specifications, as pure values."""
