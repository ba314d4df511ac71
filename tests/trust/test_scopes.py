"""What locations are called in a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncpull.spec.location import parse_location
from asyncpull.spec.reference import parse_reference
from asyncpull.trust.scopes import scopes_of

if TYPE_CHECKING:
    from pathlib import Path

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "scopes", "intended"),
    [
        (
            "docker://sub.example.com:5/a/b:1",
            [
                "sub.example.com:5/a/b:1",
                "sub.example.com:5/a/b",
                "sub.example.com:5/a",
                "sub.example.com:5",
                "*.example.com",
                "*.com",
            ],
            "sub.example.com:5/a/b:1",
        ),
        (
            "busybox",
            [
                "docker.io/library/busybox:latest",
                "docker.io/library/busybox",
                "docker.io/library",
                "docker.io",
                "*.io",
            ],
            "busybox:latest",
        ),
        (
            f"docker://localhost/a:1@sha256:{HEX}",
            [f"localhost/a@sha256:{HEX}", "localhost/a", "localhost"],
            f"localhost/a@sha256:{HEX}",
        ),
        ("docker-daemon:localhost/a:1", ["localhost/a:1", "localhost/a", "localhost"], "localhost/a:1"),
        (f"docker-daemon:sha256:{HEX}", [], None),
        ("docker-archive:/x/y.tar:a:1", [], "a:1"),
        ("docker-archive:/x/y.tar", [], None),
        ("oci:/no/such/layout:name", ["/no/such/layout", "/no/such", "/no"], None),
        ("oci-archive:/no/such.tar", ["/no/such.tar", "/no"], None),
        ("dir:/no/such/../dir", ["/no/dir", "/no"], None),
        ("sif:/no/such.sif", ["/no/such.sif", "/no"], None),
        ("tarball:/no/such.tar", [], None),
        (
            "containers-storage:a.example/b:1",
            ["[vfs@/g]a.example/b:1", "[vfs@/g]a.example/b", "[vfs@/g]a.example", "[vfs@/g]", "[/g]"],
            "a.example/b:1",
        ),
        (
            f"containers-storage:[overlay@/r]a.example/b:1@sha256:{HEX}@{HEX}",
            [
                f"[overlay@/r]a.example/b:1@sha256:{HEX}@{HEX}",
                f"[overlay@/r]a.example/b:1@sha256:{HEX}",
                "[overlay@/r]a.example/b:1",
                "[overlay@/r]a.example/b",
                "[overlay@/r]a.example",
                "[overlay@/r]",
                "[/r]",
            ],
            f"a.example/b:1@sha256:{HEX}",
        ),
        (f"containers-storage:{HEX}", [f"[vfs@/g]@{HEX}", "[vfs@/g]", "[/g]"], None),
    ],
)
def test_scopes(text: str, scopes: list[str], intended: str | None) -> None:
    found = scopes_of(parse_location(text), driver="vfs", graph_root="/g")
    assert list(found.scopes) == scopes
    assert found.intended == (None if intended is None else parse_reference(intended))
    assert found.transport == text.partition(":")[0].replace("busybox", "docker")


def test_a_store_says_which_image_it_is() -> None:
    named = [f"[vfs@/g]a.example/b:1@{HEX}", "[vfs@/g]a.example/b:1", "[vfs@/g]a.example/b", "[vfs@/g]a.example"]
    for text, scopes in (("a.example/b:1", named), (HEX[:12], [f"[vfs@/g]@{HEX}"])):
        location = parse_location(f"containers-storage:{text}")
        found = scopes_of(location, driver="vfs", graph_root="/g", image_id=HEX)
        assert list(found.scopes) == [*scopes, "[vfs@/g]", "[/g]"]


def test_links_do_not_hide_where_an_image_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real/layout").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    found = scopes_of(parse_location("oci:link/layout"))
    assert found.scopes[:2] == (f"{tmp_path}/real/layout", f"{tmp_path}/real")
