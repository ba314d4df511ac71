"""Lists that come in pages: where the next one is (RFC 8288; distribution-spec 1.1, "Listing Tags").

``Link: </v2/a/b/tags/list?n=100&last=v1>; rel="next"``, relative or absolute. A page at another origin than the one
before is refused: whoever asks for it would show it the authorization for that.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from asyncpull.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

_PARAMETER = r';\s*([^\s;,="]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?\s*'
_LINK = re.compile(rf"<([^<>]*)>\s*((?:{_PARAMETER})*)")


def next_page(url: str, links: Sequence[str]) -> str | None:
    """The path and query of the page after that at ``url``, whose Link headers these are; None if it is the last.

    Raises UnavailableError for a page that is at another origin or nowhere.
    """
    for link in (found for value in links for found in _LINK.finditer(value)):
        target, parameters = link[1], re.findall(_PARAMETER, link[2])
        relations = [quoted or bare for name, quoted, bare in parameters if name.lower() == "rel"]
        if not relations or "next" not in relations[0].lower().split():
            continue
        here = urlsplit(url)
        try:
            there = urlsplit(urljoin(url, str(target)))
        except ValueError as error:
            raise UnavailableError(f"{here.scheme}://{here.netloc}{here.path}: the next page has no URL") from error
        if (here.scheme, here.netloc) != (there.scheme, there.netloc.rpartition("@")[2]):
            raise UnavailableError(f"{here.scheme}://{here.netloc}{here.path}: the next page is at another origin")
        return there.path + (f"?{there.query}" if there.query else "")
    return None
