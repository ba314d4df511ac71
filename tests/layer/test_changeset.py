"""What members mean: names cleaned, whiteouts recognised, what cannot be stored refused."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.errors import UnsupportedMemberError
from asyncpull.layer.changeset import Action, Changeset, Effect, clean_link, clean_name
from asyncpull.layer.header import Member, parse_header
from tests.support.tar_blocks import header


def made(name: bytes, kind: bytes = b"0", **changes: object) -> Member:
    member = parse_header(header(b"a", kind), 512)
    member.name = name
    for field, value in changes.items():
        setattr(member, field, value)
    return member


def action(name: bytes, kind: bytes = b"0", **changes: object) -> Action:
    return Changeset().action(made(name, kind, **changes))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"a", b"a"),
        (b"a/b", b"a/b"),
        (b"a/", b"a"),
        (b"a//", b"a"),
        (b"/a", b"a"),
        (b"//a//b", b"a/b"),
        (b"./a", b"a"),
        (b"././a", b"a"),
        (b".//a", b"a"),
        (b"./.a", b".a"),
        (b".a", b".a"),
        (b"..a", b"..a"),
        (b"a..", b"a.."),
        (b"a/...", b"a/..."),
        (b"a/./b", b"a/b"),
        (b"a/.", b"a"),
        (b"a/../b", b"b"),
        (b"a/b/../../c", b"c"),
        (b"a/..", b""),
        (b"", b""),
        (b".", b""),
        (b"./", b""),
        (b"/", b""),
        (b"a\nb/ c", b"a\nb/ c"),
        (b"..", None),
        (b"../a", None),
        (b"./../a", None),
        (b"/../a", None),
        (b"a/../../b", None),
        (b"a/../../a/b", None),
    ],
)
def test_names_are_cleaned(name: bytes, path: bytes | None) -> None:
    assert clean_name(name) == path


COMPONENTS = st.one_of(st.sampled_from([b"", b".", b"..", b"a", b".b", b"..c"]), st.binary(max_size=3))
PATHS = st.lists(COMPONENTS, max_size=8).map(b"/".join)


@given(PATHS)
def test_a_cleaned_name_is_what_others_make_of_it_or_leads_out(name: bytes) -> None:
    path = clean_name(name)
    normal = posixpath.normpath(b"root/" + name)
    if path is None:
        # Somewhere on its way it was outside, even if it came back to a directory of the same name.
        assert b".." in name.split(b"/")
    else:
        assert normal == (b"root/" + path if path else b"root")
        assert clean_name(path) == path
    if normal.split(b"/")[0] != b"root":
        assert path is None


@given(PATHS)
def test_a_link_never_leads_out(target: bytes) -> None:
    path = clean_link(target)
    assert b".." not in path.split(b"/")
    assert b"/" + path == posixpath.normpath(b"/" + target.lstrip(b"/"))


@pytest.mark.parametrize(
    ("kind", "effect"),
    [
        (b"0", Effect.FILE),
        (b"5", Effect.DIRECTORY),
        (b"3", Effect.CHARACTER_DEVICE),
        (b"4", Effect.BLOCK_DEVICE),
        (b"6", Effect.FIFO),
    ],
)
def test_effects(kind: bytes, effect: Effect) -> None:
    assert action(b"./usr//bin/a/", kind) == Action(effect, b"usr/bin", b"a")
    assert action(b"a", kind) == Action(effect, b"", b"a")


def test_links() -> None:
    assert action(b"d/a", b"2", link_name=b"../../b") == Action(Effect.SYMLINK, b"d", b"a")
    assert action(b"d/a", b"1", link_name=b"./d/../b/") == Action(Effect.HARD_LINK, b"d", b"a", b"b")
    assert action(b"d/a", b"1", link_name=b"/../../b") == Action(Effect.HARD_LINK, b"d", b"a", b"b")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b".wh.a", Action(Effect.WHITEOUT, b"", b"a")),
        (b"d/.wh.a", Action(Effect.WHITEOUT, b"d", b"a")),
        (b"d/.wh..a", Action(Effect.WHITEOUT, b"d", b".a")),
        (b"d/.wh....", Action(Effect.WHITEOUT, b"d", b"...")),
        (b"d/.wh..wh..opq", Action(Effect.OPAQUE, b"d", b"")),
        (b".wh..wh..opq", Action(Effect.OPAQUE, b"", b"")),
        (b"d/.wh..wh.plnk", Action(Effect.WHITEOUT, b"d", b".wh.plnk")),
        (b"d/.wh..wh..opqx", Action(Effect.WHITEOUT, b"d", b".wh..opqx")),
        (b".wh.d/a", Action(Effect.FILE, b".wh.d", b"a")),
        (b"d/a.wh.b", Action(Effect.FILE, b"d", b"a.wh.b")),
        (b".wha", Action(Effect.FILE, b"", b".wha")),
    ],
)
def test_whiteouts(name: bytes, expected: Action) -> None:
    assert action(name) == expected


@pytest.mark.parametrize("kind", [b"0", b"1", b"2", b"3", b"5"])
def test_a_whiteout_is_one_whatever_its_type(kind: bytes) -> None:
    assert action(b"d/.wh.a", kind) == Action(Effect.WHITEOUT, b"d", b"a")


@pytest.mark.parametrize("name", [b"", b"./", b"/", b"a/.."])
def test_the_root_is_a_directory_and_nothing_happens_to_it(name: bytes) -> None:
    assert action(name, b"5").effect is Effect.NOTHING
    with pytest.raises(UnsupportedMemberError):
        action(name, b"0")


def test_a_global_header_does_nothing() -> None:
    assert action(b"pax_global_header", b"g").effect is Effect.NOTHING


@pytest.mark.parametrize("kind", [b"7", b"S", b"A", b"V", b"\xff"])
def test_unknown_types_are_refused(kind: bytes) -> None:
    with pytest.raises(UnsupportedMemberError) as refused:
        action(b"name", kind)
    assert (refused.value.member, refused.value.position) == (b"name", 512)


@pytest.mark.parametrize("name", [b"../x", b"../../etc/x", b"/..", b"a/../../x"])
def test_names_that_lead_out_are_refused(name: bytes) -> None:
    with pytest.raises(UnsupportedMemberError):
        action(name)


@pytest.mark.parametrize("name", [b".wh.", b"d/.wh.", b"d/.wh..", b"d/.wh..."])
def test_whiteouts_of_no_name_are_refused(name: bytes) -> None:
    with pytest.raises(UnsupportedMemberError):
        action(name)


def test_whiteouts_with_contents_are_refused() -> None:
    for name in (b".wh.a", b".wh..wh..opq"):
        with pytest.raises(UnsupportedMemberError):
            action(name, size=1)


@pytest.mark.parametrize("link", [b"", b"/", b"..", b"a/.."])
def test_hard_links_to_the_root_are_refused(link: bytes) -> None:
    with pytest.raises(UnsupportedMemberError):
        action(b"a", b"1", link_name=link)


def test_what_linux_cannot_hold_is_refused() -> None:
    longest = b"d/" * 2046 + b"ab"
    assert action(b"n" * 255).name == b"n" * 255
    assert len(action(longest).parent) == 2 * 2046 - 1
    assert action(b"a", b"2", link_name=b"t" * 4095).effect is Effect.SYMLINK
    for name in (b"n" * 256, b"d/" + b"n" * 256 + b"/a", longest + b"c"):
        with pytest.raises(UnsupportedMemberError):
            action(name)
    for link in (b"", b"t" * 4096):
        with pytest.raises(UnsupportedMemberError):
            action(b"a", b"2", link_name=link)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (made(b"a"), made(b"./a")),
        (made(b"a"), made(b"/a")),
        (made(b"a", b"5"), made(b"a/", b"5")),
        (made(b"a", b"5"), made(b"b/../a")),
        (made(b"n/" * 200), made(b"./" + b"n/" * 200)),
        (made(b".wh.a"), made(b".wh.a")),
        (made(b"./", b"5"), made(b"/", b"5")),
        (made(b"x", b"g"), made(b"x", b"g")),
        (made(b"x", b"g"), made(b"x")),
    ],
)
def test_the_same_name_twice_is_refused(first: Member, second: Member) -> None:
    changeset = Changeset()
    changeset.action(first)
    with pytest.raises(UnsupportedMemberError) as refused:
        changeset.action(second)
    assert refused.value.member == second.name


def test_a_whiteout_and_what_it_hides_are_two_names() -> None:
    changeset = Changeset()
    for name in (b"a", b".wh.a", b".wh.b", b"b", b"n/" * 200 + b"a", b"n/" * 200 + b"b"):
        changeset.action(made(name))


LONG = st.sampled_from([b"n" * 255, b"n" * 256, b"d" * 130 + b"/e", b"d/" * 1920 + b"e" * 250, b"d/" * 2046 + b"ab"])


@given(
    st.lists(st.tuples(st.one_of(PATHS, LONG), st.sampled_from([b"", b"/f", b"/.f", b"/" + b"m" * 200])), max_size=20)
)
def test_what_came_before_changes_nothing_but_what_is_refused(names: list[tuple[bytes, bytes]]) -> None:
    changeset, seen = Changeset(), set[bytes | None]()
    for name in map(b"".join, names):
        try:
            expected = action(name, b"5")
        except UnsupportedMemberError:
            expected = None
        path = clean_name(name)
        if expected is None or path in seen:
            with pytest.raises(UnsupportedMemberError):
                changeset.action(made(name, b"5"))
        else:
            assert changeset.action(made(name, b"5")) == expected
        if expected is not None:
            seen.add(path)
