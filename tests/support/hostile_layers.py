"""Layers made to do harm, each by its name: what it tries, who fell for it before, and how it has to end.

``outside`` is what an attack aims at: the absolute path of a directory with ``victim`` and ``sub`` in it, which is none
of the layer's business. No attack has to know how far up from a layer's root that is: ``..`` stops at ``/``.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import zstandard

from asyncpull.layer.ceilings import Ceilings
from tests.support.images import Image, raw_image
from tests.support.tar_blocks import (
    BLOCK,
    END,
    GNU,
    base_256,
    header,
    long_name,
    member,
    padded,
    raw_records,
    record,
    records,
)
from tests.support.tars import (
    Entry,
    block_device,
    character_device,
    directory,
    fifo,
    file,
    hard_link,
    opaque,
    symlink,
    tar,
    whiteout,
)

Layer = bytes | Sequence[Entry]
MIB: Final = 1 << 20

BASE: Final = tar(
    [directory("etc"), file("etc/passwd", b"root\n"), file("etc/shadow", b"secret\n", 0o600), directory("d")]
)
"""The layer that all attacks stand on."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It ends with this error, exit code 65, and such a message."""

    error: str
    says: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """It is pulled, and this is the tree of its last layer: kinds by name, without the directories that are implied.

    ``without_devices`` is the tree where devices cannot be made.
    """

    tree: Mapping[str, str]
    without_devices: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Attack:
    """``known`` are the CVEs of its kind. ``whole`` is how it ends on complete trees, where that is another way."""

    name: str
    layers: Callable[[str], Sequence[Layer]]
    ends: Refused | Made
    known: str = ""
    whole: Refused | Made | None = None
    blob: Callable[[bytes], bytes] | None = None
    ceilings: Ceilings | None = None

    def image(self, outside: str) -> Image:
        """The image to be offered; each is another one."""
        tars = [layer if isinstance(layer, bytes) else tar(layer) for layer in self.layers(outside)]
        compress = self.blob or gzip.compress
        return raw_image(
            [(gzip.compress(BASE, mtime=0), BASE), *((compress(each), each) for each in tars)], comment=self.name
        )


def up(outside: str) -> str:
    """The relative way to ``outside`` from anywhere."""
    return "../" * 40 + outside.lstrip("/")


def one(*entries: Entry) -> Callable[[str], Sequence[Layer]]:
    """A single layer that does not care where the outside is."""
    return lambda _: [entries]


def raw(layer: bytes) -> Callable[[str], Sequence[Layer]]:
    return lambda _: [layer]


UNSUPPORTED, MALFORMED = "UnsupportedMemberError", "MalformedLayerError"
OUT: Final = Refused(UNSUPPORTED, "leads out of the layer")
THROUGH: Final = Refused(UNSUPPORTED, "leads through a link to no directory")
NO_LINK: Final = Refused(UNSUPPORTED, "a hard link to something that is not in this layer")
SPARSE: Final = Refused(UNSUPPORTED, "a sparse file")
NO_NAME: Final = Refused(UNSUPPORTED, "a whiteout of no name")
TOO_LONG: Final = Refused(UNSUPPORTED, "a name that Linux cannot hold")
NUMBER: Final = Refused(MALFORMED, "a field that is no number")
NEGATIVE: Final = Refused(MALFORMED, "a negative size")
PAX: Final = Refused(MALFORMED, "a PAX record that breaks the format")
CUT: Final = Refused(MALFORMED, "ends too early")

HOSTILE: Final = {"uid": 7, "gid": 7, "mode": 0o7777, "mtime_ns": 1, "xattrs": {"user.x": b"x"}}
"""What nobody outside is to be given."""

_ACL: Final = bytes.fromhex("0200000001000700ffffffff04000500ffffffff20000500ffffffff")

NAMES: Final = (
    Attack("a name with dots", lambda _: [[file("../../victim", b"x")]], OUT, "CVE-2007-4559 CVE-2014-9356"),
    Attack("a name with dots after something", one(file("a/../../victim", b"x")), OUT, "CVE-2019-10743"),
    Attack("a directory with dots", one(directory("..", 0o777)), OUT, "CVE-2021-32804"),
    Attack("a link with dots in its name", one(symlink("../../l", "/")), OUT, "CVE-2018-20834"),
    Attack("a whiteout with dots", one(file("../.wh.victim")), OUT),
    Attack("an opaque entry with dots", one(file("../../.wh..wh..opq")), OUT),
    Attack("a long name with dots", raw(long_name(b"../" * 50 + b"x") + member(b"x", b"x", magic=GNU) + END), OUT),
    Attack("a record with dots", raw(records({b"path": b"../../x"}) + member(b"x", b"x") + END), OUT),
    Attack(
        "an absolute name",
        lambda outside: [[file(f"{outside}/victim", b"x"), file("//etc//passwd", b"x")]],
        Made({"{outside}/victim": "file", "etc/passwd": "file"}),
        "CVE-2014-9356 CVE-2021-32804 CVE-2001-1267",
    ),
    Attack("a null in a record's path", raw(records({b"path": b"in\0/../../x"}) + member(b"x", b"x") + END), PAX),
    Attack("a name of 256 bytes", one(file("x" * 256)), TOO_LONG),
    Attack("a path over PATH_MAX", one(file("/".join(["x" * 200] * 21))), TOO_LONG),
    Attack("a target over PATH_MAX", one(symlink("l", "x" * 4096)), Refused(UNSUPPORTED, "that Linux cannot hold")),
    Attack(
        "a target through links over PATH_MAX",
        lambda outside: [_path_max_attack(outside)],
        Refused(UNSUPPORTED, "too long"),
        "CVE-2025-4517 CVE-2025-4330 CVE-2025-4138",
    ),
    Attack(
        "names that a file system could take for the same",
        lambda outside: [[symlink("caf\u00e9", outside), directory("cafe\u0301"), file("cafe\u0301/victim", b"x")]],
        Made({"caf\u00e9": "link {outside}", "cafe\u0301": "directory", "cafe\u0301/victim": "file"}),
        "CVE-2021-37701 CVE-2021-37712 CVE-2026-23950",
    ),
    Attack("the same name twice", one(file("a", b"x"), file("./a", b"y")), Refused(UNSUPPORTED, "a second member")),
)


def _path_max_attack(outside: str) -> list[Entry]:
    """Links upon links, so that a path that was made canonical is longer than PATH_MAX and is believed as it stands."""
    step = "d" * 247
    entries: list[Entry] = []
    path = ""
    for letter in "abcdefghijklmnop":
        entries += [directory(path + step), symlink(path + letter, step)]
        path += step + "/"
        if len(path) > 3500:
            break
    short = "/".join("abcdefghijklmnop"[: len(entries) // 2])
    entries += [
        symlink(short + "/" + "l" * 254, "../" * (len(entries) // 2)),
        symlink("escape", short + "/" + "l" * 254 + up(outside)),
    ]
    return [*entries, file("escape/victim", b"x")]


LINKS: Final = (
    Attack(
        "a file through a link",
        lambda outside: [[symlink("l", outside), file("l/victim", b"x")]],
        THROUGH,
        "CVE-2014-6407 CVE-2021-32803 CVE-2025-45582 CVE-2026-17106",
    ),
    Attack("a file through a relative link", lambda outside: [[symlink("l", up(outside)), file("l/new")]], THROUGH),
    Attack(
        "a file through a chain of links",
        lambda outside: [
            [symlink("a", "b"), symlink("b", "c/../c"), symlink("c", up(outside)), file("a/victim", b"x")]
        ],
        THROUGH,
        "CVE-2025-4330",
    ),
    Attack(
        "a link in one layer and a file through it in the next",
        lambda outside: [[symlink("l", outside)], [file("l/victim", b"x")]],
        Made({"l/victim": "file"}),
        "CVE-2014-6407 CVE-2025-45582 CVE-2025-11395",
        whole=THROUGH,
    ),
    Attack("a directory through a link", lambda outside: [[symlink("l", outside), directory("l/sub", 0o777)]], THROUGH),
    Attack("a link through a link", lambda outside: [[symlink("l", outside), symlink("l/new", "/")]], THROUGH),
    Attack("a FIFO through a link", lambda outside: [[symlink("l", outside), fifo("l/new")]], THROUGH),
    Attack(
        "a link to the root above the root",
        one(symlink("l", "/../../.."), file("l/etc/passwd", b"x")),
        Made({"l": "link /../../..", "etc/passwd": "file"}),
        "CVE-2014-9356",
    ),
    Attack(
        "a file over a link",
        lambda outside: [[directory("d"), symlink("l", "d"), symlink("d/x", outside + "/victim"), file("l/x", b"x")]],
        Made({"d": "directory", "l": "link d", "d/x": "file"}),
        "CVE-2016-6321 CVE-2026-23745",
    ),
    Attack(
        "a hard link to the outside",
        lambda outside: [[hard_link("h", outside + "/victim")]],
        NO_LINK,
        "CVE-2014-6407 CVE-2026-42497",
    ),
    Attack(
        "a hard link with dots to the outside", lambda outside: [[hard_link("h", up(outside) + "/victim")]], NO_LINK
    ),
    Attack(
        "a hard link through a link",
        lambda outside: [[symlink("l", outside), hard_link("h", "l/victim")]],
        NO_LINK,
        "CVE-2024-28180 CVE-2025-59343",
    ),
    Attack(
        "a file over a hard link to a link",
        lambda outside: [
            [
                directory("d"),
                symlink("l", "d"),
                symlink("d/s", outside + "/victim"),
                hard_link("d/h", "d/s"),
                file("l/h", b"x"),
            ]
        ],
        Made({"d": "directory", "l": "link d", "d/s": "link {outside}/victim", "d/h": "file"}),
        "CVE-2026-23745 CVE-2026-26960",
    ),
    Attack(
        "a hard link into the layer below",
        lambda outside: [[file("etc/shadow", b"secret", 0o600)], [hard_link("h", "etc/shadow", 0o666)]],
        NO_LINK,
        whole=Made({}),
    ),
    Attack(
        "a hard link to a directory", one(directory("d"), hard_link("h", "d")), Refused(UNSUPPORTED, "to a directory")
    ),
    Attack("a hard link to itself", one(hard_link("h", "h")), NO_LINK),
    Attack(
        "a directory replaced by a link and used again",
        lambda outside: [
            [
                directory("d"),
                symlink("l", "d"),
                directory("d/x"),
                file("d/x/f"),
                symlink("l/x", outside),
                file("d/x/victim"),
            ]
        ],
        THROUGH,
        "CVE-2021-37701 CVE-2021-37713",
    ),
    Attack(
        "a link replaced by a directory and back",
        lambda outside: [
            [
                directory("d"),
                *(symlink(f"l{number}", "d") for number in range(3)),
                symlink("d/x", outside),
                directory("l0/x"),
                file("d/x/f"),
                symlink("l1/x", outside),
                file("l2/x/victim", b"x"),
            ]
        ],
        THROUGH,
        "CVE-2018-15664 CVE-2021-37701",
    ),
    Attack(
        "links that lead to each other",
        one(symlink("a", "b/c"), symlink("b", "a/d"), file("a/x")),
        Refused(UNSUPPORTED, "too many links"),
    ),
    Attack(
        "links that double the path",
        one(directory("l0"), *(symlink(f"l{n}", f"l{n - 1}/../l{n - 1}") for n in range(1, 30)), file("l29/x")),
        Refused(UNSUPPORTED, "too many links"),
    ),
    Attack("a link for the root", one(symlink("./", "/")), Refused(UNSUPPORTED, "for the root"), "CVE-2021-29136"),
    Attack("a file for the root", raw(member(b"/", b"") + END), Refused(UNSUPPORTED, "for the root"), "CVE-2021-29136"),
    Attack(
        "a link for the file that tells users",
        lambda outside: [[symlink("etc/passwd", outside + "/fifo"), symlink("etc/group", outside + "/fifo")]],
        Made({"etc/passwd": "link {outside}/fifo", "etc/group": "link {outside}/fifo"}),
        "CVE-2024-9676",
    ),
    Attack(
        "a file over a FIFO",
        one(directory("d"), symlink("l", "d"), fifo("d/p"), file("l/p", b"x")),
        Made({"d": "directory", "l": "link d", "d/p": "file"}),
    ),
)

METADATA: Final = (
    Attack(
        "owner, mode, times and attributes through a link",
        lambda outside: [
            [
                symlink("v", outside + "/victim").with_(**HOSTILE | {"xattrs": {}}),
                symlink("d", outside).with_(**HOSTILE | {"xattrs": {}}),
                hard_link("h", "v").with_(**HOSTILE | {"xattrs": {}}),
            ]
        ],
        Made({"v": "link {outside}/victim", "d": "link {outside}", "h": "link {outside}/victim"}),
        "CVE-2024-12718 CVE-2026-4360 CVE-2016-7543",
    ),
    Attack(
        "what is set of directories at the end",
        lambda outside: [
            [
                directory("d"),
                symlink("l", "d"),
                directory("d/x", 0o777).with_(xattrs={"system.posix_acl_default": _ACL}),
                directory("d/x/sub", 0o777),
                file("d/x/sub/f"),
                symlink("l/x", outside),
            ]
        ],
        Made({"d": "directory", "l": "link d", "d/x": "link {outside}"}),
        "CVE-2021-31566 CVE-2021-23177",
    ),
    Attack("an owner of -1", raw(member(b"a", uid=base_256(0xFFFFFFFF, 8)) + END), Refused(UNSUPPORTED, "an owner")),
    Attack(
        "an owner that would wrap to root",
        raw(records({b"uid": b"4294967296", b"gid": b"4294967296"}) + member(b"a", mode=0o4755) + END),
        Refused(UNSUPPORTED, "no file system can hold"),
        "CVE-2024-40635",
    ),
    Attack(
        "a device",
        one(character_device("null", 1, 3), block_device("disk", 8, 0), hard_link("n2", "null")),
        Made({"null": "character 1:3", "disk": "block 8:0", "n2": "character 1:3"}, {}),
    ),
    Attack(
        "a device that is a whiteout",
        one(character_device("etc/passwd", 0, 0, 0)),
        Made({"etc/passwd": "whiteout"}, {}),
        whole=Made({}),
    ),
    Attack(
        "attributes that are marks of overlay",
        one(
            directory("d").with_(xattrs={"trusted.overlay.opaque": b"y", "user.overlay.opaque": b"y"}),
            file("f").with_(xattrs={"trusted.overlay.redirect": b"/etc", "user.overlay.metacopy": b""}),
        ),
        Made({"d": "directory", "f": "file"}),
        "kernel: Documentation/filesystems/overlayfs, metacopy",
    ),
)

WHITEOUTS: Final = (
    Attack(
        "a whiteout through a link",
        lambda outside: [[symlink("l", outside), whiteout("l/victim")]],
        THROUGH,
        "CVE-2014-6407",
    ),
    Attack("an opaque entry through a link", lambda outside: [[symlink("l", outside), opaque("l")]], THROUGH),
    Attack(
        "a whiteout through a link of the layer below",
        lambda outside: [[symlink("l", outside)], [whiteout("l/victim"), opaque("l")]],
        Made({"l/victim": "whiteout"}),
        whole=THROUGH,
    ),
    Attack("a whiteout of nothing", one(file("d/.wh.")), NO_NAME),
    Attack("a whiteout of the directory", one(file("d/.wh..")), NO_NAME),
    Attack("a whiteout of the parent", one(file("d/.wh...")), NO_NAME),
    Attack("a whiteout of the root", one(file(".wh..")), NO_NAME),
    Attack("a whiteout with contents", one(file(".wh.a", b"x")), Refused(UNSUPPORTED, "a whiteout with contents")),
    Attack("an opaque root", one(opaque(".")), Made({}), whole=Made({})),
    Attack(
        "the names that AUFS keeps",
        one(file(".wh..wh.plnk"), file(".wh..wh.aufs")),
        Made({".wh.plnk": "whiteout", ".wh.aufs": "whiteout"}),
        whole=Made({}),
    ),
    Attack(
        "a hard link to a whiteout",
        one(whiteout("x"), hard_link("h", "x")),
        Refused(UNSUPPORTED, "a hard link"),
        whole=NO_LINK,
    ),
    Attack(
        "a whiteout that is a link",
        lambda outside: [[symlink("d/.wh.x", outside)]],
        Made({"d/x": "whiteout"}),
        whole=Made({}),
    ),
)

_INNER: Final = member(b"../../victim", b"x")

NUMBERS: Final = (
    Attack("a size of 2^63", raw(member(b"a", size=base_256(1 << 63, 12), magic=GNU) + END), NUMBER),
    Attack(
        "a size of 2^62",
        raw(member(b"a", size=base_256(1 << 62, 12), magic=GNU) + END),
        Refused(MALFORMED, "the layer ends in contents"),
    ),
    Attack("a negative size", raw(member(b"a", size=base_256(-512, 12), magic=GNU) + END), NEGATIVE, "CVE-2025-8194"),
    Attack(
        "a negative size in a record", raw(records({b"size": b"-512"}) + member(b"a") + END), NEGATIVE, "CVE-2025-8194"
    ),
    Attack("a size of 60 digits", raw(records({b"size": b"9" * 60}) + member(b"a") + END), PAX),
    Attack("a base-256 number of all ones", raw(member(b"a", size=b"\x80" + b"\xff" * 11, magic=GNU) + END), NUMBER),
    Attack("a number with letters", raw(member(b"a", size=b"12x4") + END), NUMBER),
    Attack(
        "sizes that contradict each other",
        raw(records({b"size": b"%d" % len(_INNER)}) + header(b"a", size=0) + _INNER + member(b"b") + END),
        Made({"a": f"file of {len(_INNER)}", "b": "file"}),
        "CVE-2025-62518 (TARmageddon)",
    ),
    Attack(
        "a size of something without contents",
        raw(header(b"d/", b"5", size=1024) + member(b"f", b"x") + END),
        Made({"d": "directory", "f": "file"}),
    ),
    Attack(
        "a hard link with contents",
        raw(member(b"a", b"x") + member(b"h", _INNER, b"1", link=b"a") + END),
        Refused(UNSUPPORTED, "a hard link with contents"),
    ),
    Attack(
        "the same record twice",
        raw(raw_records(record(b"path", b"a") + record(b"path", b"../../x")) + member(b"x") + END),
        OUT,
    ),
    Attack(
        "a record and a long name that contradict each other",
        raw(records({b"path": b"harmless"}) + long_name(b"../x") + member(b"x", magic=GNU) + END),
        OUT,
    ),
    Attack("a record that is longer than it says", raw(raw_records(b"8 path=a\n") + member(b"a") + END), PAX),
    Attack("a record that goes beyond its header", raw(raw_records(b"99999999 path=a\n") + member(b"a") + END), PAX),
    Attack("a sparse file of GNU", raw(header(b"a", b"S", magic=GNU) + END), SPARSE),
    Attack(
        "a sparse map without end",
        raw(
            records({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9"})
            + member(b"a", padded(b"9" * 18 + b"\n" + b"0\n1\n" * 100_000))
            + END
        ),
        SPARSE,
        "CVE-2025-58183",
    ),
    Attack(
        "headers without end",
        raw(b"".join(records({b"comment": b"c" * 1_000_000}) for _ in range(6)) + member(b"a") + END),
        Refused(MALFORMED, "too many extension headers"),
        "CVE-2022-2879",
    ),
    Attack(
        "a header of two megabytes",
        raw(raw_records(record(b"comment", b"c" * (2 * MIB))) + member(b"a") + END),
        Refused(MALFORMED, "an extension header of a bad size"),
        "CVE-2022-2879",
    ),
    Attack("a type that nobody knows", raw(member(b"a", kind=b"Q") + END), Refused(UNSUPPORTED, "unknown type")),
    Attack(
        "a wrong checksum", raw(member(b"a", checksum=b"000000\0 ") + END), Refused(MALFORMED, "its checksum is wrong")
    ),
    Attack("a header that is cut off", raw(member(b"a") + header(b"b")[:300]), Refused(MALFORMED, "ends in a header")),
    Attack(
        "contents that are cut off",
        raw(member(b"a", b"x" * 600)[:700]),
        Refused(MALFORMED, "the layer ends in contents"),
    ),
    Attack(
        "a header after a block of zeros",
        raw(member(b"a") + bytes(BLOCK) + _INNER + END),
        Refused(MALFORMED, "a single block of zeros"),
    ),
    Attack("an archive after the end", raw(member(b"a") + END + _INNER + END), Made({"a": "file"})),
)


def _rle_bomb(size: int) -> bytes:
    """A zstd frame of blocks that repeat a byte: four bytes for 128 KiB each."""
    blocks = size >> 17
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([(17 - 10) << 3])
    return frame + b"".join(
        (int(n == blocks - 1) | 1 << 1 | (1 << 17) << 3).to_bytes(3, "little") + b"\0" for n in range(blocks)
    )


def _window(log: int) -> bytes:
    """A zstd frame that wants a window of 2 to that power, with one block of zeros."""
    block = (1 | 1 << 1 | 512 << 3).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([(log - 10) << 3]) + block


def _xz_of_a_huge_dictionary(layer: bytes) -> bytes:
    """The header of the first block says that decoding takes 4 GiB."""
    data = bytearray(lzma.compress(layer))
    data[16] = 40
    data[20:24] = zlib.crc32(data[12:20]).to_bytes(4, "little")
    return bytes(data)


_ZEROS: Final = 16 * MIB
_SMALL: Final = Ceilings(ratio=100, ratio_from=MIB)
_FILE: Final = tar([file("a", random.Random(1).randbytes(20_000))])

STREAMS: Final = (
    Attack(
        "a bomb of gzip",
        one(file("zeros", bytes(_ZEROS))),
        Refused("CeilingError", "100 times as large as its blob"),
        "CVE-2017-14992 CVE-2026-59873",
        ceilings=_SMALL,
    ),
    Attack(
        "a bomb of zstd",
        raw(bytes(_ZEROS)),
        Refused("CeilingError", "the ceiling of ratio"),
        "CVE-2017-14992",
        blob=lambda _: _rle_bomb(_ZEROS),
        ceilings=_SMALL,
    ),
    Attack(
        "a bomb after the end",
        raw(member(b"a") + END + bytes(_ZEROS)),
        Refused("CeilingError", "the ceiling of ratio"),
        "CVE-2017-14992",
        ceilings=_SMALL,
    ),
    Attack(
        "a bomb of bzip2",
        one(file("zeros", bytes(_ZEROS))),
        Refused("CeilingError", "the ceiling of ratio"),
        blob=bz2.compress,
        ceilings=_SMALL,
    ),
    Attack(
        "a layer over the ceiling of size",
        one(file("noise", b"x" * 3000)),
        Refused("CeilingError", "more than 2,048 bytes"),
        ceilings=Ceilings(size=2048),
    ),
    Attack(
        "a layer over the ceiling of members",
        one(*(file(f"f{n}") for n in range(100))),
        Refused("CeilingError", "more than 99 members"),
        ceilings=Ceilings(members=99),
    ),
    Attack(
        "a layer over the ceiling of time",
        one(*(file(f"f{n}") for n in range(500))),
        Refused("CeilingError", "seconds of processor time"),
        ceilings=Ceilings(seconds=0),
    ),
    Attack(
        "gzip in gzip",
        raw(_FILE),
        Refused(MALFORMED, "not a tar header"),
        blob=lambda layer: gzip.compress(gzip.compress(layer)),
    ),
    Attack("gzip that is cut off", raw(_FILE), CUT, blob=lambda layer: gzip.compress(layer)[:-20]),
    Attack("zstd that is cut off", raw(_FILE), CUT, blob=lambda layer: zstandard.compress(layer)[:-5]),
    Attack("xz that is cut off", raw(_FILE), CUT, "CVE-2021-20291", blob=lambda layer: lzma.compress(layer)[:-20]),
    Attack(
        "xz that is damaged",
        raw(_FILE),
        Refused(MALFORMED, "damaged"),
        "CVE-2021-20291",
        blob=lambda layer: lzma.compress(layer)[:40] + b"\xff" * 40,
    ),
    Attack(
        "xz that wants all memory",
        raw(_FILE),
        Refused(MALFORMED, "damaged"),
        "CVE-2014-9357",
        blob=lambda layer: _xz_of_a_huge_dictionary(layer),
    ),
    Attack(
        "gzip with a wrong checksum",
        raw(_FILE),
        Refused(MALFORMED, "damaged"),
        blob=lambda layer: gzip.compress(layer)[:-8] + bytes(8),
    ),
    Attack(
        "members of gzip one after another",
        raw(_FILE),
        Made({"a": "file"}),
        blob=lambda layer: gzip.compress(layer[:777]) + gzip.compress(b"") + gzip.compress(layer[777:]),
    ),
    Attack(
        "something after the last member",
        raw(_FILE),
        Refused(MALFORMED, "no further member"),
        blob=lambda layer: gzip.compress(layer) + b"something",
    ),
    Attack(
        "a hundred thousand empty members",
        raw(_FILE),
        Made({"a": "file"}),
        blob=lambda layer: gzip.compress(layer) + gzip.compress(b"", mtime=0) * 100_000,
    ),
    Attack("a window over the limit", raw(bytes(512)), Refused(MALFORMED, "damaged"), blob=lambda _: _window(31)),
    Attack(
        "a frame that is skipped and never ends",
        raw(_FILE),
        CUT,
        blob=lambda layer: zstandard.compress(layer) + b"\x50\x2a\x4d\x18\xff\xff\xff\xff",
    ),
    Attack(
        "a block that cannot be",
        raw(_FILE),
        Refused(MALFORMED, "damaged"),
        blob=lambda layer: zstandard.compress(layer)[:9] + b"\xff" * 20,
    ),
    Attack(
        "a dictionary that nobody has",
        raw(_FILE),
        Refused(MALFORMED, "damaged"),
        blob=lambda layer: b"\x28\xb5\x2f\xfd\x03\x38\x01\x02\x03\x04" + zstandard.compress(layer)[9:],
    ),
    Attack("no archive at all", raw(b"this is no archive " * 100), NUMBER),
    Attack("nothing", raw(b""), Made({}), whole=Made({})),
)


_DEEP: Final = "/".join(["d"] * 2000)


def _masses(files: int, markers: int) -> tuple[Attack, Attack]:
    """Twice as many take twice as long, as test_steps.py shows, and how much memory test_masses.py."""
    names = [f"f{number}" for number in range(files)]
    return (
        Attack(f"{files} empty files", one(*map(file, names)), Made(dict.fromkeys(names, "file"))),
        Attack(f"{markers} opaque entries", one(*(opaque(f"d{number}") for number in range(markers))), Made({})),
    )


MASSES: Final = (
    Attack(
        "a tree two thousand directories deep",
        one(file(_DEEP + "/f"), hard_link(_DEEP + "/g", _DEEP + "/f")),
        Made({_DEEP + "/f": "file", _DEEP + "/g": "file"}),
    ),
    Attack(
        "a deep tree replaced",
        one(directory("d"), symlink("l", "d"), file(_DEEP + "/f"), file("l/d", b"x")),
        Made({"d": "directory", "l": "link d", "d/d": "file"}),
    ),
    *_masses(3000, 3000),
)

ATTACKS: Final = (*NAMES, *LINKS, *METADATA, *WHITEOUTS, *NUMBERS, *STREAMS, *MASSES)
