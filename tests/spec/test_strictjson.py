"""Strict JSON: what is refused, and how the place is named."""

from __future__ import annotations

import pytest

from asyncpull.errors import DocumentError
from asyncpull.spec.strictjson import StrictObject


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not JSON: Expecting value: line 1 column 1"),
        (b"[]", "the document is an array, not an object"),
        (b'{"a": 1} x', "Extra data: line 1 column 10"),
        (b'{"a": 1,\n "a": 2}', "a is there twice"),
        (b'{"a": NaN}', "NaN is no JSON"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        (b'\xef\xbb\xbf{"a": 1}', "not JSON"),
        (b'{"a": ' + b"[" * 200_000, "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_refused(raw: bytes, message: str) -> None:
    with pytest.raises(DocumentError, match=message.replace("(", r"\(")):
        StrictObject.parse(raw)


def test_places_are_named() -> None:
    document = StrictObject.parse(b'{"a": {"b c": [{"x": null, "y": true, "z": 1}]}}')
    ((item, where),) = document.inner("a").array("b c")
    inner = StrictObject.of(item, where)
    assert where == 'a."b c"[0]'
    assert inner.integer("z") == 1
    for name, ask, message in (
        ("x", inner.text, 'a."b c"[0].x is null, not a string'),
        ("y", inner.integer, 'a."b c"[0].y is a boolean, not an integer'),
        ("z", inner.array, 'a."b c"[0].z is a number, not an array'),
        ("y", inner.inner, 'a."b c"[0].y is a boolean, not an object'),
        ("w", inner.value, 'a."b c"[0].w is missing'),
    ):
        with pytest.raises(DocumentError) as caught:
            ask(name)
        assert str(caught.value) == message
    with pytest.raises(DocumentError, match=r"\.z is not a key that is known here"):
        inner.only("x", "y")
    with pytest.raises(DocumentError, match="is missing"):
        inner.exactly("x", "y", "z", "w")


def test_an_object_is_no_array() -> None:
    with pytest.raises(DocumentError, match="a is an object, not an array"):
        StrictObject.parse(b'{"a": {}}').array("a")


def test_repeated_keys_deep_inside_are_found_when_they_are_read() -> None:
    document = StrictObject.parse(b'{"a": {"b": 1, "b": 1}}')
    with pytest.raises(DocumentError, match=r"a\.b is there twice"):
        document.inner("a")
