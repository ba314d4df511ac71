"""Where the next page of a list is."""

from __future__ import annotations

import pytest

from asyncpull.errors import UnavailableError
from asyncpull.registry.pagination import next_page

URL = "https://example.org:5000/v2/a/b/tags/list?…"


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ((), None),
        (("",), None),
        (("nonsense",), None),
        (('</v2/a/b/tags/list?n=2&last=v1>; rel="next"',), "/v2/a/b/tags/list?n=2&last=v1"),
        (("</v2/x>; rel=next",), "/v2/x"),
        (("</v2/x>;rel=NEXT",), "/v2/x"),
        (('</v2/x>; title="a, <b>; rel=next"; rel="last"',), None),
        (('</v2/x>; title="more"; rel="prefetch next"',), "/v2/x"),
        (('</first>; rel="first", </next?a=1,2>; rel="next"',), "/next?a=1,2"),
        (('</first>; rel="first"', '</next>; rel="next"'), "/next"),
        (("</v2/x>",), None),
        (('</v2/x>; rel="nextish"',), None),
        (('<?last=v9>; rel="next"',), "/v2/a/b/tags/list?last=v9"),
        (('<list?last=v9>; rel="next"',), "/v2/a/b/tags/list?last=v9"),
        (('<https://example.org:5000/v2/x?y=%2F>; rel="next"',), "/v2/x?y=%2F"),
        (('<https://me:secret@example.org:5000/v2/x>; rel="next"',), "/v2/x"),
    ],
)
def test_the_next_page(links: tuple[str, ...], expected: str | None) -> None:
    assert next_page(URL, links) == expected


@pytest.mark.parametrize(
    "target",
    [
        "http://example.org:5000/v2/x",
        "https://example.org/v2/x",
        "https://example.com:5000/v2/x",
        "//example.com/v2/x",
        "file:///etc/passwd",
    ],
)
def test_another_origin_is_refused(target: str) -> None:
    with pytest.raises(UnavailableError, match="another origin"):
        next_page(URL, [f'<{target}>; rel="next"'])


@pytest.mark.parametrize("target", ["//[", "https://[::1", "//[a]:5000/v2/x"])
def test_what_is_no_url_is_refused(target: str) -> None:
    with pytest.raises(UnavailableError, match="the next page has no URL"):
        next_page(URL, [f'<{target}>; rel="next"'])
