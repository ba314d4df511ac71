"""Odd layers: what writers got wrong, or right in unusual ways. Each by its name, as the bytes of its tar.

- ACCEPTED: podman pulls and (but for the two of BETTER) exports them. Its tar-splits of them are the golden files of
  tests/layer/golden.
- REFUSED: podman's pull fails. So does ours.
- STRICTER: podman pulls them, but can never export them again (the last one: could use up any memory). Ours fails.
"""

from __future__ import annotations

from typing import Final

from tests.support.tar_blocks import (
    BLOCK,
    END,
    GNU,
    V7,
    base_256,
    checksum_of,
    directory,
    header,
    long_name,
    member,
    octal,
    padded,
    raw_records,
    record,
    records,
)

_FILE: Final = member(b"after", b"after it\n")
_LONG: Final = b"directory/" * 20 + b"a name that does not fit"
_SPARSE_PAIR: Final = {b"GNU.sparse.offset": b"0", b"GNU.sparse.numbytes": b"4"}
_SPARSE_MAP: Final = padded(b"1\n0\n4\n")

ACCEPTED: Final[dict[str, bytes]] = {
    # Ends.
    "nothing": b"",
    "end-only": END,
    "end-missing": member(b"a", b"a"),
    "end-of-one-block": member(b"a", b"a") + bytes(BLOCK),
    "end-in-padding": member(b"a", b"a")[:-100],
    "end-without-padding": member(b"a", b"a")[: BLOCK + 1],
    "end-after-extension": member(b"a") + records({b"path": b"b"}),
    "zero-block-only": bytes(BLOCK),
    "record-of-tar": member(b"a", b"a") + bytes(10240 - 2 * BLOCK),
    "garbage-after-end": member(b"a", b"a") + END + b"not a tar at all" * 100,
    "member-after-end": member(b"a", b"a") + END + _FILE + END,
    # Names.
    "gnu-long-name": long_name(_LONG) + member(_LONG[:100], b"x" * 1000, magic=GNU) + _FILE + END,
    "gnu-long-link": long_name(_LONG, b"K") + member(b"link", kind=b"2", link=_LONG[:100], magic=GNU) + END,
    "gnu-long-both": (
        long_name(_LONG, b"K") + long_name(_LONG + b"2") + member(_LONG[:100], kind=b"2", link=b"x", magic=GNU) + END
    ),
    "gnu-empty-long-name": long_name(b"") + member(b"short", b"x", magic=GNU) + END,
    "gnu-name-of-100": member(b"n" * 100, b"x", magic=GNU) + END,
    "pax-long-name": records({b"path": _LONG, b"linkpath": _LONG}) + member(_LONG[:100], b"x" * 700) + _FILE + END,
    "pax-long-symlink": records({b"linkpath": _LONG}) + member(b"link", kind=b"2", link=_LONG[:100]) + END,
    "pax-and-gnu-name": (
        records({b"path": b"from-pax"}) + long_name(b"from-gnu") + member(b"from-header", b"x", magic=GNU) + END
    ),
    "pax-twice": records({b"path": b"p", b"uid": b"5"}) + records({b"gid": b"6"}) + member(b"a", b"x") + END,
    "pax-empty-values": (
        records({b"path": b"", b"size": b"", b"mtime": b"", b"comment": b""}) + member(b"a", b"x") + END
    ),
    "pax-size": records({b"size": b"600"}) + header(b"a", size=0) + padded(b"x" * 600) + _FILE + END,
    "pax-size-smaller": records({b"size": b"3"}) + header(b"a", size=600) + padded(b"xyz") + _FILE + END,
    "pax-plus-sign": records({b"uid": b"+7", b"mtime": b"+1700000000.5"}) + member(b"a", b"x") + END,
    "pax-no-records": raw_records(b"") + member(b"a", b"x") + END,
    "pax-newline-in-value": records({b"path": b"a\nb=c\n"}) + member(b"a", b"x") + END,
    "ustar-prefix": member(b"name", b"x", prefix=b"directory/" * 15) + END,
    "ustar-odd-version": member(b"name", b"x", prefix=b"pre", magic=b"ustar\0  ") + END,
    "star-prefix": (
        member(b"name", b"x", prefix=(b"pre" * 20).ljust(131, b"\0") + octal(1, 12) + octal(2, 12), trailer=b"tar\0")
        + END
    ),
    "gnu-times": member(b"name", b"x", prefix=octal(1_700_000_001, 12) + octal(1_700_000_002, 12), magic=GNU) + END,
    "gnu-with-prefix-of-old-go": member(b"name", b"x", prefix=b"some/directory/here", magic=GNU) + END,
    "gnu-with-odd-prefix": member(b"name", b"x", prefix="sömé/directory".encode(), magic=GNU) + END,
    "v7": member(b"name", b"x", magic=V7) + END,
    "v7-with-prefix": member(b"name", b"x", magic=V7, prefix=b"means nothing") + END,
    "nul-type": member(b"file", b"x", kind=b"\0", magic=V7) + member(b"dir/", kind=b"\0", magic=V7) + END,
    "nul-type-long": (
        long_name(b"d" * 120 + b"/")
        + member(b"d" * 100, kind=b"\0", magic=GNU)
        + long_name(b"f" * 120)
        + member(b"f" * 99 + b"/", b"x", kind=b"\0", magic=GNU)
        + END
    ),
    "file-with-slash": member(b"file/", b"x") + END,
    "not-utf-8": member(b"caf\xe9", b"x") + member(b"\xff\xfe", b"y", magic=GNU) + directory(b"d\xe9/") + END,
    "not-utf-8-pax": records({b"path": b"caf\xe9/\xff"}) + member(b"a", b"x") + END,
    "utf-8": member("naïve/日本語/🐧".encode(), b"x") + END,
    "json-escapes": b"".join(
        member(name, b"x")
        for name in (
            b'quo"te',
            b"back\\slash",
            b"<html>&amp;",
            b"\x01\x02\x07\x08\x09\x0a\x0b\x0c\x0d\x1f\x7f",
            "line\u2028paragraph\u2029".encode(),
            "private\ue000 astral\U0001f427".encode(),
            b"sp ace'",
        )
    )
    + END,
    "name-with-nul-inside": member(b"before\0after", b"x") + END,
    "unclean-names": (
        directory(b"./") + directory(b"./a//b/./") + member(b"a/b/../c", b"x") + member(b"a/../b", b"y") + END
    ),
    "absolute-names": directory(b"/abs/") + member(b"/abs/file", b"x") + member(b"/top", b"") + END,
    # Numbers.
    "base-256": (
        member(
            b"a",
            b"x" * 70,
            size=base_256(70, 12),
            uid=base_256(4_000_000_000, 8),
            gid=base_256(3_000_000, 8),
            mtime=base_256(1_700_000_000, 12),
            magic=GNU,
        )
        + _FILE
        + END
    ),
    "numbers-with-spaces": (
        member(b"a", b"x" * 7, size=b"          7 ", mode=b"   644 ", uid=b"     0 ", gid=b"0", mtime=b" 14524770400")
        + END
    ),
    "numbers-empty": member(b"a", mode=b"", uid=b"", gid=b" ", mtime=b"", size=b"") + END,
    "number-without-end": member(b"a", b"x" * 8, size=b"000000000010") + _FILE + END,
    "number-cut-by-nul": member(b"a", b"x" * 8, size=b"10\0junk") + _FILE + END,
    "checksum-signed": member(b"caf\xe9", b"x", signed=True) + END,
    "checksum-odd-form": member(b"a", b"x", checksum=b"%7o\0" % checksum_of(header(b"a", size=1))) + END,
    "pax-big-numbers": records({b"uid": b"4000000000", b"gid": b"3000000"}) + member(b"a", b"x") + END,
    "before-1970": member(b"a", b"x", mtime=base_256(-100, 12), magic=GNU) + END,
    "pax-before-1970": records({b"mtime": b"-1.5", b"atime": b"-0.5"}) + member(b"a", b"x") + END,
    "pax-times": (
        records({b"mtime": b"1700000000.123456789123", b"atime": b"1700000001.5", b"ctime": b"1."})
        + member(b"a", b"x")
        + END
    ),
    # Types.
    "types": (
        directory(b"d/")
        + member(b"d/file", b"x" * 1025, mode=0o4755, uid=5, gid=6)
        + member(b"d/hard", kind=b"1", link=b"d/file")
        + member(b"d/sym", kind=b"2", link=b"/anywhere/../at all")
        + member(b"d/char", kind=b"3", devices=(1, 3))
        + member(b"d/block", kind=b"4", devices=(7, 0))
        + member(b"d/fifo", kind=b"6")
        + member(b"d/empty")
        + END
    ),
    "exact-blocks": member(b"a", b"x" * 512) + member(b"b", b"y" * 1024) + _FILE + END,
    "whiteouts": (
        member(b".wh.top")
        + directory(b"d/")
        + member(b"d/.wh.file")
        + member(b"d/.wh..wh..opq")
        + member(b"d/.wh..wh.plnk")
        + directory(b"d/.wh.directory/")
        + END
    ),
    "opaque-root": member(b".wh..wh..opq") + END,
    "xattrs": (
        records(
            {b"SCHILY.xattr.user.one": b"a\0b\n=c", b"SCHILY.xattr.user.no": b"", b"LIBARCHIVE.xattr.user.x": b"eQ"}
        )
        + member(b"a", b"x")
        + END
    ),
    "global-header": records({b"comment": b"0123456789abcdef"}, b"g", name=b"pax_global_header") + _FILE + END,
    "global-header-named": records({b"path": b"another-name", b"size": b"5"}, b"g") + _FILE + END,
    "global-header-forgets": (
        records({b"path": b"lost"}) + long_name(b"lost-too") + records({b"comment": b"c" * 512}, b"g") + _FILE + END
    ),
    "sparse-of-unknown-version": (
        records({b"GNU.sparse.major": b"2", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": b"n"})
        + member(b"a", b"x")
        + END
    ),
    "sizes-without-contents": (
        directory(b"d/", size=4096)
        + member(b"sym", kind=b"2", size=3, link=b"abc")
        + member(b"fifo", kind=b"6", size=1)
        + member(b"dir/", kind=b"\0", size=5, magic=V7)
        + _FILE
        + END
    ),
    "implied-directories": member(b"some/where/file", b"x") + END,
}

# podman's tar-split of these does not lead back to the layer: it lacks the incomplete padding, and would have contents
# where there are none. Ours does.
BETTER: Final = frozenset({"end-in-padding", "sizes-without-contents"})

REFUSED: Final[dict[str, bytes]] = {
    "same-file-twice": member(b"a", b"x") + member(b"a", b"y") + END,
    "same-directory-twice": directory(b"a/") + directory(b"./a/") + END,
    "same-after-cleaning": member(b"a/b", b"x") + member(b"a/c/../b", b"y") + END,
    "same-whiteout-twice": member(b".wh.a") + member(b".wh.a") + END,
    "same-global-header-twice": records({b"a": b"b"}, b"g") + records({b"c": b"d"}, b"g") + END,
    "global-header-and-file": records({b"a": b"b"}, b"g", name=b"x") + member(b"x", b"x") + END,
    "type-7": member(b"a", b"x", kind=b"7") + END,
    "type-sparse": header(b"a", b"S", magic=GNU) + END,
    "type-unknown": member(b"a", b"x", kind=b"Q") + END,
    "component-of-256": records({b"path": b"n" * 256}) + member(b"a", b"x") + END,
    "path-of-4096": records({b"path": b"directory/" * 409 + b"123456"}) + member(b"a", b"x") + END,
    "whiteout-of-nothing": member(b".wh.") + END,
    "whiteout-of-itself": directory(b"a/") + member(b"a/.wh..") + END,
    "whiteout-of-the-parent": directory(b"a/") + member(b"a/.wh...") + END,
    "symlink-to-nothing": member(b"a", kind=b"2") + END,
    "symlink-of-4096": records({b"linkpath": b"t" * 4096}) + member(b"a", kind=b"2") + END,
    "hard-link-to-root": member(b"a", kind=b"1", link=b"/") + END,
    "file-for-the-root": member(b"/", b"") + END,
    "one-zero-block": member(b"a") + bytes(BLOCK) + _FILE + END,
    "one-zero-block-and-a-bit": member(b"a") + bytes(BLOCK + 10),
    "checksum-wrong": member(b"a", checksum=b"000000\0 ") + END,
    "checksum-off-by-one": member(b"a", checksum=b"%06o\0 " % (checksum_of(header(b"a")) + 1)) + END,
    "checksum-no-number": member(b"a", checksum=b"hellohel") + END,
    "size-no-number": member(b"a", size=b"12x4") + END,
    "size-of-89-digits": member(b"a", size=b"00000000089") + END,
    "size-negative": member(b"a", size=base_256(-1, 12), magic=GNU) + END,
    "size-negative-pax": records({b"size": b"-1"}) + member(b"a") + END,
    "size-overflow": member(b"a", size=b"\x80" + b"\xff" * 11, magic=GNU) + END,
    "device-no-number": member(b"a", kind=b"3", devices=b"bad") + END,
    "device-no-number-of-a-file": member(b"a", devices=b"bad") + END,
    "short-header": member(b"a") + header(b"b")[:300],
    "short-contents": member(b"a", b"x" * 600)[:700],
    "short-extension": records({b"comment": b"c" * 600})[:800],
    "extension-of-a-mebibyte": raw_records(record(b"comment", b"c" * (1 << 20))) + _FILE + END,
    "pax-length-wrong": raw_records(b"8 path=a\n") + _FILE + END,
    "pax-length-too-long": raw_records(b"99 path=a\n") + _FILE + END,
    "pax-length-none": raw_records(b"path=a\n") + _FILE + END,
    "pax-length-padded": raw_records(b"0000000005 a=\n") + _FILE + END,
    "pax-no-key": raw_records(b"6 =ab\n") + _FILE + END,
    "pax-no-value": raw_records(b"8 abcde\n") + _FILE + END,
    "pax-nul-in-path": records({b"path": b"a\0b"}) + _FILE + END,
    "pax-nul-in-key": records({b"a\0b": b"c"}) + _FILE + END,
    "pax-size-no-number": records({b"size": b"5x"}) + _FILE + END,
    "pax-uid-no-number": records({b"uid": b"0x5"}) + _FILE + END,
    "pax-uid-overflow": records({b"uid": b"9223372036854775808"}) + _FILE + END,
    "pax-time-no-number": records({b"mtime": b"1.5.5"}) + _FILE + END,
    "pax-time-no-seconds": records({b"mtime": b".5"}) + _FILE + END,
    "pax-ctime-no-number": records({b"ctime": b"x"}) + _FILE + END,
    "pax-global-no-number": records({b"uid": b"x"}, b"g") + _FILE + END,
    "pax-sparse-order": records({b"GNU.sparse.numbytes": b"1", b"GNU.sparse.offset": b"1"}) + _FILE + END,
    "not-a-tar": b"this is not a tar archive, but long enough to be one. " * 30,
}

STRICTER: Final[dict[str, bytes]] = {
    "outside": member(b"../x", b"x") + END,
    "outside-deep": member(b"../../etc/x", b"x") + END,
    "outside-late": member(b"a/../../x", b"x") + END,
    "outside-absolute": member(b"/../x", b"x") + END,
    "same-but-for-a-slash": member(b"a", b"x") + member(b"/a", b"y") + END,
    "hard-link-with-size": member(b"a", b"xyz") + header(b"b", b"1", size=3, link=b"a") + END,
    "whiteout-with-contents": member(b".wh.a", b"x") + END,
    "opaque-with-contents": member(b".wh..wh..opq", b"x") + END,
    "sparse-1.0": (
        records(
            {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": b"n", b"GNU.sparse.size": b"9"}
        )
        + member(b"GNUSparseFile.0/n", _SPARSE_MAP + b"data")
        + END
    ),
    "sparse-0.1": (
        records({b"GNU.sparse.map": b"0,4", b"GNU.sparse.numblocks": b"1", b"GNU.sparse.size": b"9"})
        + member(b"a", b"data")
        + END
    ),
    "sparse-0.0": (
        records({b"GNU.sparse.size": b"9", b"GNU.sparse.numblocks": b"1"} | _SPARSE_PAIR) + member(b"a", b"data") + END
    ),
    "extensions-without-end": b"".join(records({b"comment": b"c" * 1_000_000}) for _ in range(5)) + _FILE + END,
}
