"""Tars of any kind, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.support.tar_blocks import BLOCK, END, GNU, long_name, member, records

NAMES = st.binary(min_size=1, max_size=120).filter(lambda name: b"\0" not in name)
MEMBERS = st.one_of(
    st.builds(
        lambda name, data, mode, magic: member(name[:100], data, mode=mode, magic=magic),
        NAMES,
        st.binary(max_size=1500),
        st.integers(0, 0o7777),
        st.sampled_from([b"ustar\x0000", GNU, bytes(8)]),
    ),
    st.builds(lambda name, data: long_name(name) + member(b"h", data, magic=GNU), NAMES, st.binary(max_size=600)),
    st.builds(lambda name, data: records({b"path": name}) + member(b"h", data), NAMES, st.binary(max_size=600)),
    st.builds(lambda name, link: member(name[:100], kind=b"2", link=link[:100]), NAMES, NAMES),
    st.builds(lambda value: records({b"comment": value}, b"g"), st.binary(max_size=600)),
)
TARS = st.builds(
    lambda parts, end: b"".join(parts) + end,
    st.lists(MEMBERS, max_size=6),
    st.sampled_from([b"", bytes(BLOCK), END, END + bytes(9000), END + b"trailing"]),
)
