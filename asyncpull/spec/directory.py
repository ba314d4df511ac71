"""The flat directory of ``dir:`` (containers/image, package directory): which file is what.

::

    version                          "Directory Transport Version: 1.1", 1.2 where a digest is not a sha256
    manifest.json                    what was copied: a manifest or an index
    <digest>.manifest.json           a manifest that an index lists
    <digest>                         a blob
    signature-N, <digest>.signature-N

``<digest>`` is its hex form alone for sha256, ``<algorithm>-<hex>`` for others.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from asyncpull.errors import DocumentError

if TYPE_CHECKING:
    from asyncpull.spec.digest import Digest

VERSION: Final = "version"
MANIFEST: Final = "manifest.json"

_VERSION: Final = re.compile(rb"Directory Transport Version: ([0-9]{1,9})\.([0-9]{1,9})\n")
_NEWEST: Final = (1, 2)
_NAME: Final = re.compile(
    r"(?:signature-[0-9]+|(?:sha384-|sha512-)?[0-9a-f]{64,128}(?:\.manifest\.json|\.signature-[0-9]+)?)"
)


def blob_name(digest: Digest) -> str:
    """The file of a blob."""
    return digest.encoded if digest.algorithm == "sha256" else f"{digest.algorithm}-{digest.encoded}"


def manifest_name(digest: Digest) -> str:
    """The file of a manifest that an index lists."""
    return f"{blob_name(digest)}.manifest.json"


def version_for(names: frozenset[str]) -> bytes:
    """What ``version`` says in a directory with files of these names: as little as will do."""
    has_others = any(name.startswith(("sha384-", "sha512-")) for name in names)
    return b"Directory Transport Version: 1.%d\n" % (2 if has_others else 1)


def check_version(raw: bytes, where: str) -> None:
    """Refuse a ``version`` that is not of this format, or of a newer one. Raises DocumentError."""
    match = _VERSION.fullmatch(raw)
    if match is None:
        raise DocumentError(f"{where} is not that of an image directory")
    if (int(match[1]), int(match[2])) > _NEWEST:
        raise DocumentError(f"{where}: version {match[1].decode()}.{match[2].decode()} is not known", "this reads 1.2")


def is_of_image(name: str) -> bool:
    """Whether a file of that name is a part of an image, so that it goes when another image comes."""
    return _NAME.fullmatch(name) is not None
