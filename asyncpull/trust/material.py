"""Keys and certificates that a policy names, read when they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.errors import ConfigurationError

if TYPE_CHECKING:
    from asyncpull.trust.policy import Material

_FILE_LIMIT = 16 << 20  # keyrings of whole distributions have some megabytes


def read_material(material: Material) -> list[tuple[str, bytes]]:
    """Each piece, with where it comes from. Raises ConfigurationError for a file that cannot be read."""
    return [(path, read_key_file(path)) for path in material.paths] + [("the policy", data) for data in material.data]


def read_key_file(path: str) -> bytes:
    """The content of a file of keys. Raises ConfigurationError."""
    try:
        with open(path, "rb") as file:
            raw = file.read(_FILE_LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a path"
        raise ConfigurationError(f"{path}: the key cannot be read: {reason}") from error
    if len(raw) > _FILE_LIMIT:
        raise ConfigurationError(f"{path}: larger than {_FILE_LIMIT} bytes, which no key is")
    return raw
