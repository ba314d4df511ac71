"""Targets: what lies in a store and beside it, and what people say about stores."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.cli.formats import parse_duration, parse_size
from asyncpull.cli.namespace import granted_ranges
from asyncpull.errors import ConfigurationError, StoreCorruptError, UsageError
from asyncpull.extract.protocol import Advanced, Decoder, Extracted, Failed, Front, encode
from asyncpull.journal import JournaledFile, read_records
from asyncpull.lockholders import FileIdentity, parse_locks
from asyncpull.store.driveroptions import check_options, file_options, parse_options
from asyncpull.store.idmap import is_contiguous, parse_id_map
from asyncpull.store.records import (
    CONTAINERS,
    IMAGES,
    LAYERS,
    RecordKind,
    big_data_file_name,
    format_json,
    format_records,
    is_time,
    parse_array,
    parse_records,
    parse_time,
)
from asyncpull.store.storageconf import read_files, table_in, unknown_keys
from asyncpull.store.views import ContainerRecord, ImageRecord, LayerRecord
from asyncpull.syncfile import parse_sync_file
from asyncpull.yamlfile import parse_yaml
from tests.fuzz.spec import DIGITS, deep
from tests.fuzz.target import Target, text_of
from tests.support.layer_reading import slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOLDEN = Path(__file__).parents[1] / "store" / "golden"
FILE = Path("/somewhere/file")


def _records(
    kind: RecordKind, view: Callable[[dict[str, object], bool], LayerRecord | ImageRecord | ContainerRecord]
) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        records = parse_records(data, kind, "file.json")
        written = format_records(records, kind)
        again = parse_records(written, kind, "file.json")
        assert again == records
        assert format_records(again, kind) == written
        for record in records:
            seen = view(record, True)
            assert seen.id == record["id"]
            if isinstance(seen, ImageRecord):
                assert isinstance(seen.digests, frozenset)
            else:
                assert seen.created_at.tzinfo is not None
                assert seen.is_id_mapped == bool(seen.uidmap or seen.gidmap)

    return run


def _times(data: bytes) -> None:
    text = text_of(data)
    if is_time(text):
        assert parse_time(text).tzinfo is not None


def _mountpoints(data: bytes) -> None:
    found = parse_array(data, "mountpoints.json")
    assert parse_array(format_json(found), "mountpoints.json") == found


def _big_data_name(data: bytes) -> None:
    name = big_data_file_name(data.decode(errors="replace"))
    assert "/" not in name
    assert 0 < len(name.encode()) <= 255
    assert name not in (".", "..")


def _id_map(data: bytes) -> None:
    text = text_of(data)
    assert all(start >= 0 and count > 0 for start, count in granted_ranges(text, ["a", "1000"]))
    maps = parse_id_map(text)
    assert maps
    assert parse_id_map(",".join(map(str, maps))) == maps
    is_contiguous(maps)


def _options(data: bytes) -> None:
    options, _stores = parse_options(text_of(data).split("\n"), "overlay")
    check_options(options)


def _storage_conf(data: bytes) -> None:
    fd = os.memfd_create("storage.conf")
    try:
        os.write(fd, data)
        table = read_files({"CONTAINERS_STORAGE_CONF": f"/proc/self/fd/{fd}"}, 0, (), rootless=False)
    finally:
        os.close(fd)
    unknown_keys(table)
    options, _stores = file_options(table_in(table, "storage"), "overlay")
    check_options(options)


def _journal(data: bytes) -> None:
    """The second half is the blob."""
    journal, _, blob = data.partition(b"\0")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        directory = Path(name)
        (directory / "journal").write_bytes(journal)
        (directory / "blob").write_bytes(blob)
        told = read_records(directory)
        with JournaledFile(directory) as file:
            kept = file.verified(1 << 20)
            assert [record for record in told if record in kept] == kept
            assert all(record.range.end <= len(blob) for record in kept)
            end = len(file.path.read_bytes())
            stored = file.store(end, [b"more"], "https://[::1]:5/ %\udc80".encode(errors="replace").decode())
            assert file.verified(1 << 20)[-1].range == stored


def _locks(data: bytes) -> None:
    held = parse_locks(text_of(data), FileIdentity(8, 1, 42))
    assert all(pid >= -1 for pid in held)


def _protocol(data: bytes) -> None:
    """Messages are pickled, by a process that was started by ours: only how they come is anybody's guess."""
    failure = StoreCorruptError("broken", text_of(data)[:100])
    messages = [Front(len(data)), Advanced(1 << 70), Extracted(1, 2, (0,), (1,), (data[:50],)), Failed(failure)]
    stream = b"".join(map(encode, messages))
    decoder = Decoder()
    found = [message for piece in slices(stream, 1 + (data[0] if data else 0)) for message in decoder.feed(piece)]
    assert list(map(repr, found)) == list(map(repr, messages))


def _yaml(data: bytes) -> None:
    parse_yaml(FILE, data)


def _sync(data: bytes) -> None:
    for registry in parse_sync_file(FILE, data):
        domain = registry.domain.partition("/")[0]
        expected = "docker.io" if domain == "index.docker.io" else domain
        assert all(image.domain == expected for image in registry.images)


def _amounts(data: bytes) -> None:
    text = text_of(data)
    with suppress(UsageError):
        assert parse_size(text) > 0
    assert parse_duration(text) >= 0


def _record_seeds(name: str) -> Callable[[], Iterator[bytes]]:
    def seeds() -> Iterator[bytes]:
        for path in sorted(GOLDEN.glob(f"*{name}.json")):
            yield path.read_bytes()
        yield b'[{"id":"' + b"a" * 64 + b'","created":"2024-01-02T03:04:05.123456789+01:00","names":["a"]}]'
        yield b'[{"id":"' + b"b" * 64 + b'","created":"2024-01-02T03:04:05Z","flags":{"a":' + deep(300) + b"}}]"
        yield b"null"

    return seeds


_SYNC = b"""a.example:
  images: {busybox: [], redis: ["1.0", "sha256:%b"]}
  images-by-tag-regex: {nginx: '^1\\.13'}
  images-by-semver: {alpine: ">= 3.12.0"}
  credentials: {username: john, password: x}
  tls-verify: true
  cert-dir: /x
""" % (b"0" * 64)
_STORAGE = b"""[storage]
driver = "overlay"
graphroot = "/a"
[storage.options]
additionalimagestores = ["/b"]
pull_options = {enable_partial_images = "true"}
[storage.options.overlay]
mountopt = "nodev"
ignore_chown_errors = "false"
"""
_JOURNAL = b"asyncpull journal 1\n0 4 0a0a\n4 2 ffff https://a.example/%20b\n\0blob"
_LOCKS = b"1: POSIX  ADVISORY  WRITE 77 08:01:42 0 EOF\nlock:\t2: OFDLCK ADVISORY  READ -1 08:01:42 0 EOF \n"
_JSON_WORDS = (b'"created":"', b'"flags":', b'"uidmap":[{"container_id":0,"host_id":1,"size":2}]', b"\xff", b"1e999")
_TIMES = (
    b"2024-01-02T03:04:05Z",
    b"0001-01-01T00:00:00Z",
    b"9999-12-31T23:59:59.999999999-23:59",
    b"2024-02-30T24:00:00,5Z",
)
_CORRUPT = (StoreCorruptError,)
_CONFIGURATION = (ConfigurationError,)
_SMALL = (8 << 20, 400)  # a directory of its own, and whatever else the system's ways take

TARGETS = (
    Target(
        "layers-json",
        _records(LAYERS, LayerRecord.from_raw),
        _CORRUPT,
        _record_seeds("layers"),
        (*_JSON_WORDS, b'"compression":2', b'"uidset":[0]'),
    ),
    Target(
        "images-json",
        _records(IMAGES, ImageRecord.from_raw),
        _CORRUPT,
        _record_seeds("images"),
        (*_JSON_WORDS, b'"big-data-digests":{"manifest":"', b'"digest":"sha256:00"'),
    ),
    Target(
        "containers-json",
        _records(CONTAINERS, ContainerRecord.from_raw),
        _CORRUPT,
        _record_seeds("containers"),
        _JSON_WORDS,
    ),
    Target("record-time", _times, (), lambda: _TIMES, (b"+00:00", b".", b"0000-", b"\xd9\xa3")),
    Target("mountpoints-json", _mountpoints, _CORRUPT, _record_seeds("mountpoints"), _JSON_WORDS),
    Target("big-data-name", _big_data_name, (ValueError,), lambda: (b"manifest", b"sha256:00", b"..", b"a/b")),
    Target(
        "id-map",
        _id_map,
        (UsageError,),
        lambda: (b"0:100000:65536,65536:1", b"a:100:5\n1000:7:8", b"a:1:" + DIGITS, DIGITS + b":1"),
        (b":", b"4294967295"),
    ),
    Target(
        "storage-options",
        _options,
        _CONFIGURATION,
        lambda: (b"overlay.mountopt=nodev\nignore_chown_errors=true", b"imagestore=/a,/b\nvfs.sync=none"),
        (b"force_mask=", b"size="),
    ),
    Target(
        "storage-conf",
        _storage_conf,
        _CONFIGURATION,
        lambda: (_STORAGE, b'storage.options.overlay.size = "1"', b"a = " + b"[" * 1500, b"a = " + b"9" * 4500),
        (b"[storage", b".options", b'"""', b"[[", b"{a=", b"1979-05-27T07:32:00Z", b"99999"),
        memory=_SMALL,
    ),
    Target(
        "journal",
        _journal,
        (),
        lambda: (_JOURNAL, b"\0", _JOURNAL.replace(b"\n", b"\r\n")),
        (b"\n", b" "),
        memory=_SMALL,
    ),
    Target(
        "locks",
        _locks,
        (),
        lambda: (_LOCKS, _LOCKS * 2, _LOCKS.replace(b"77", DIGITS), _LOCKS.replace(b":42", b":" + DIGITS)),
        (b"POSIX", b"OFDLCK", b"->", b"lock:"),
    ),
    Target("worker-protocol", _protocol, (), lambda: (b"\0a", b"\7" + bytes(40), b"\xff")),
    Target(
        "yaml",
        _yaml,
        _CONFIGURATION,
        lambda: (
            _SYNC,
            b"[" * 4000,
            b"9" * 4500,
            b"- &a [1, *a]\n- !!set {x}\n- 2001-12-14t21:59:43.10-05:00\n- 0x1F\n- 190:20:30\n- <<: {a: b}\n",
        ),
        (
            b"!!",
            b"&a",
            b"*a",
            b"<<:",
            b"? ",
            b"[[[",
            b"0b",
            b"0o",
            b".inf",
            b"!!timestamp ",
            b"!!binary ",
            b"!!int ",
            b"- ",
        ),
    ),
    Target(
        "sync-file",
        _sync,
        _CONFIGURATION,
        lambda: (_SYNC, _SYNC.replace(b"13'", b"{9999999999}'"), _SYNC.replace(b"'^", b"'" + b"(" * 2000)),
        (b"images:", b"{9999999999}", b"(?P<", b">=", b"null"),
    ),
    Target(
        "amounts",
        _amounts,
        (UsageError,),
        lambda: (b"1.5GiB", b"50 MB/s", b"1h30m", b"90", DIGITS, DIGITS + b"M"),
        (b"9" * 40, b"d", b"kib"),
    ),
)
