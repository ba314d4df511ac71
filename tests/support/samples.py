"""Images that many tests pull: small, but with everything in them that real ones have."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.images import image, noise
from tests.support.tars import (
    DAY_ONE,
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

if TYPE_CHECKING:
    from tests.support.images import Compression, Flavour, Image

_ELF = b"\x7fELF"
# A capability as the kernel keeps it: revision 2, effective, permitted = CAP_NET_RAW.
CAPABILITY = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"


def static_shell() -> bytes | None:
    """Return the bytes of a busybox that needs no libraries (Debian: package busybox-static), if there is one."""
    found = shutil.which("busybox")
    if found is None:
        return None
    data = Path(found).read_bytes()
    return data if data.startswith(_ELF) and b"ld-linux" not in data[:4096] else None


def base_layer(shell: bytes | None = None) -> bytes:
    """Return the tar of a base layer: the directories that every root file system has, and a shell if one is given."""
    entries = [directory(name) for name in ("bin", "dev", "etc", "proc", "sys", "usr", "usr/share", "var", "var/lib")]
    entries.append(directory("tmp", 0o1777))
    entries += [file("etc/base", b"base\n"), file("etc/gone", b"to be removed above\n"), directory("var/lib/old")]
    entries += [file(f"var/lib/old/{number}", b"hidden above\n") for number in range(3)]
    if shell is not None:
        entries.append(file("bin/busybox", shell, 0o755))
        entries += [symlink(f"bin/{name}", "busybox") for name in ("sh", "ls", "id", "cat", "sleep", "touch", "mount")]
    return tar(entries)


def odd_layer() -> bytes:
    """Return the tar of a layer with entries of every kind, owners, times, marks and names of every sort."""
    fine = DAY_ONE + 123_456_789
    deep = "odd/deep" + "/deeper" * 40
    return tar(
        [
            directory("odd").with_(mtime_ns=fine),
            file("odd/fine-time", b"ns\n").with_(mtime_ns=fine),
            file("odd/owned", b"x" * 5000, 0o640).with_(uid=1000, gid=1001),
            file("odd/setuid", b"#!\n", 0o4755),
            file("odd/setgid", b"#!\n", 0o2755).with_(gid=5),
            directory("odd/sticky", 0o1777),
            file("odd/empty"),
            file("odd/read-only", b"r", 0o400),
            hard_link("odd/link-of-owned", "odd/owned", 0o640).with_(uid=1000, gid=1001),
            symlink("odd/absolute", "/etc/base"),
            symlink("odd/dangling", "nowhere/at/all").with_(uid=7, gid=8, mtime_ns=fine),
            fifo("odd/fifo", 0o600),
            character_device("odd/null", 1, 3),
            block_device("odd/disk", 8, 0),
            file("odd/capable", b"ping", 0o755).with_(xattrs={"security.capability": CAPABILITY}),
            file("odd/marked", b"m").with_(xattrs={"user.comment": "grüße".encode()}),
            directory("odd/marked-directory").with_(xattrs={"user.kind": b"directory"}),
            file("odd/" + "long-name-" * 20, b"long"),
            *(directory(deep[:end]) for end in range(len("odd/deep"), len(deep) + 1, len("/deeper"))),
            file(f"{deep}/end", b"deep"),
            file(b"odd/latin-\xe9", b"not UTF-8"),
            file("odd/ünïcode", b"UTF-8"),
            file("odd/far-owner").with_(uid=4_000_000_000, gid=3_000_000),
            file("odd/noise", noise(1, 300_000)),
        ]
    )


def removing_layer() -> bytes:
    """Return the tar of a layer that removes a file, empties a directory and replaces another."""
    return tar(
        [
            directory("etc"),
            whiteout("etc/gone"),
            directory("var"),
            directory("var/lib"),
            directory("var/lib/old"),
            opaque("var/lib/old"),
            file("var/lib/old/new", b"the only one\n"),
            directory("odd"),
            whiteout("odd/sticky"),
            file("odd/owned", b"changed\n").with_(uid=1, gid=2),
        ]
    )


def rich_image(*, flavour: Flavour = "oci", comment: str = "") -> Image:
    """Return an image of three layers, that can run a shell where this machine has a static one.

    In an OCI image each layer is compressed in another way; Docker's manifests know gzip only.
    """
    layers = [base_layer(static_shell()), odd_layer(), removing_layer()]
    kinds: list[Compression] = ["gzip", "zstd", "none"] if flavour == "oci" else ["gzip"] * 3
    return image(layers, compression=kinds, flavour=flavour, comment=comment)
