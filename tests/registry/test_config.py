"""What all of the configuration comes to: endpoints and candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import ConfigurationError, PolicyError
from asyncpull.registry.config import Registries, RegistryAccess, load_registries
from asyncpull.registry.endpoint import Endpoint
from asyncpull.spec.reference import parse_reference

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = "sha256:" + "0" * 64
INSECURE = frozenset({"localhost:5000"})


@pytest.mark.parametrize(
    ("reference", "tls_verify", "expected"),
    [
        ("alpine", None, Endpoint("registry-1.docker.io", "library/alpine", "docker.io/library/alpine")),
        ("quay.io/a/b", None, Endpoint("quay.io", "a/b", "quay.io/a/b")),
        ("localhost:5000/a", None, Endpoint("localhost:5000", "a", "localhost:5000/a", insecure=True)),
        ("localhost:5001/a", None, Endpoint("localhost:5001", "a", "localhost:5001/a")),
        ("[::1]:5000/a", False, Endpoint("[::1]:5000", "a", "[::1]:5000/a", insecure=True)),
        ("localhost:5000/a", True, Endpoint("localhost:5000", "a", "localhost:5000/a")),
        (
            "alpine",
            False,
            Endpoint("registry-1.docker.io", "library/alpine", "docker.io/library/alpine", insecure=True),
        ),
    ],
)
def test_endpoints_without_any_file(reference: str, tls_verify: bool | None, expected: Endpoint) -> None:
    registries = Registries(RegistryAccess(tls_verify=tls_verify, insecure=INSECURE))
    (endpoint,) = registries.endpoints(parse_reference(reference))
    assert endpoint == expected
    assert endpoint.schemes == (("https", "http") if expected.insecure else ("https",))


async def loaded(tmp_path: Path, text: str, **access: object) -> Registries:
    conf = tmp_path / "registries.conf"
    conf.write_text(text)
    paths: dict[str, object] = {"registries_conf": conf, "registries_conf_dir": tmp_path / "none", **access}
    return await load_registries(RegistryAccess(**paths), {}, 0)  # type: ignore[arg-type]  # as the tests name them


MIRRORS = """
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "mirror.example"
[[registry.mirror]]
location = "cache.example:5000/hub"
insecure = true
[[registry.mirror]]
location = "mirror.gcr.io"
pull-from-mirror = "digest-only"
[[registry]]
location = "cache.example:5000/closed"
blocked = true
"""


async def test_mirrors_come_before_the_registry(tmp_path: Path) -> None:
    registries = await loaded(tmp_path, MIRRORS)
    assert registries.endpoints(parse_reference("alpine")) == (
        Endpoint(
            "mirror.example",
            "library/alpine",
            "mirror.example/library/alpine",
            is_mirror=True,
            is_named=False,
            namespace="docker.io",
        ),
        # The path is another one there, so the mirror need not be told what it mirrors.
        Endpoint(
            "cache.example:5000",
            "hub/library/alpine",
            "cache.example:5000/hub/library/alpine",
            is_mirror=True,
            is_named=False,
            insecure=True,
        ),
        Endpoint(
            "mirror.gcr.io",
            "library/alpine",
            "mirror.gcr.io/library/alpine",
            is_mirror=True,
            is_named=False,
            namespace="docker.io",
            resolves_tags=False,
        ),
        Endpoint("registry-1.docker.io", "library/alpine", "docker.io/library/alpine"),
    )
    by_digest = registries.endpoints(parse_reference("alpine@sha256:" + "0" * 64))
    assert all(each.resolves_tags for each in by_digest)
    assert [each.host for each in by_digest] == [
        "mirror.example",
        "cache.example:5000",
        "mirror.gcr.io",
        "registry-1.docker.io",
    ]


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        (":1", [("all.example", True), ("exact.example", False), ("tags.example", True), ("a.example", True)]),
        (f"@{DIGEST}", [("all.example", True), ("exact.example", True), ("a.example", True)]),
    ],
)
async def test_who_may_be_asked_for_content(tmp_path: Path, suffix: str, expected: list[tuple[str, bool]]) -> None:
    mirrors = (("all", "all"), ("exact", "digest-only"), ("tags", "tag-only"))
    text = '[[registry]]\nlocation = "a.example"\n' + "".join(
        f'[[registry.mirror]]\nlocation = "{name}.example"\npull-from-mirror = "{pull}"\n' for name, pull in mirrors
    )
    registries = await loaded(tmp_path, text)
    endpoints = registries.endpoints(parse_reference(f"a.example/x{suffix}"))
    assert [(each.host, each.resolves_tags) for each in endpoints] == expected


@pytest.mark.parametrize(
    ("tls_verify", "insecure"), [(None, [False, True, False, False]), (True, [False] * 4), (False, [True] * 4)]
)
async def test_tls_verify_overrides_what_files_say(
    tmp_path: Path, tls_verify: bool | None, insecure: list[bool]
) -> None:
    registries = await loaded(tmp_path, MIRRORS, tls_verify=tls_verify)
    assert [each.insecure for each in registries.endpoints(parse_reference("alpine"))] == insecure


async def test_a_blocked_mirror_is_left_out_and_a_blocked_registry_refused(tmp_path: Path) -> None:
    text = """
    [[registry]]
    location = "open.example"
    [[registry.mirror]]
    location = "closed.example/cache"
    [[registry]]
    location = "closed.example"
    blocked = true
    [[registry]]
    prefix = "moved.example"
    location = "closed.example/moved"
    """
    registries = await loaded(tmp_path, text)
    (endpoint,) = registries.endpoints(parse_reference("open.example/a"))
    assert endpoint.host == "open.example"
    for name in ("closed.example/a:1", "moved.example/a:1"):
        with pytest.raises(PolicyError) as caught:
            registries.endpoints(parse_reference(name))
        assert str(caught.value) == f"{name}: registry closed.example is blocked by {tmp_path}/registries.conf"


async def test_search_order_of_the_files(tmp_path: Path) -> None:
    home, xdg = tmp_path / "home", tmp_path / "xdg"
    places = {
        "option": tmp_path / "option.conf",
        "CONTAINERS_REGISTRIES_CONF": tmp_path / "containers.conf",
        "REGISTRIES_CONFIG_PATH": tmp_path / "path.conf",
        "XDG_CONFIG_HOME": xdg / "containers/registries.conf",
        "HOME": home / ".config/containers/registries.conf",
    }
    for name, path in places.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'unqualified-search-registries = ["{name.lower().replace("_", "-")}.example"]')
    environ = {"HOME": str(home), "XDG_CONFIG_HOME": str(xdg)}
    environ |= {name: str(path) for name, path in places.items() if name.startswith(("CONT", "REG"))}
    access = RegistryAccess(registries_conf=places["option"])
    for name, path in places.items():
        registries = await load_registries(access, environ, 0)
        assert registries.files[0] == path
        assert registries.candidates("a").references[0].domain == f"{name.lower().replace('_', '-')}.example"
        access = RegistryAccess()
        environ.pop(name, None)


@pytest.mark.parametrize("is_option", [True, False])
async def test_a_file_that_was_named_must_be_there(tmp_path: Path, is_option: bool) -> None:
    missing = tmp_path / "missing.conf"
    access = RegistryAccess(registries_conf=missing if is_option else None)
    with pytest.raises(ConfigurationError) as caught:
        await load_registries(access, {} if is_option else {"CONTAINERS_REGISTRIES_CONF": str(missing)}, 0)
    assert str(missing) in str(caught.value)


async def test_drop_ins_are_read_by_name(tmp_path: Path) -> None:
    user = tmp_path / ".config/containers"
    directory = user / "registries.conf.d"
    directory.mkdir(parents=True)
    (directory / "folder.conf").mkdir()
    (directory / "20-last.conf").write_text('unqualified-search-registries = ["last.example"]')
    (directory / "10-first.conf").write_text('unqualified-search-registries = ["first.example"]')
    (directory / "90-no.txt").write_text("unqualified-search-registries = 7")
    environ = {"HOME": str(tmp_path)}
    explicit = tmp_path / "explicit.conf"
    explicit.write_text("")
    registries = await load_registries(RegistryAccess(registries_conf=explicit), environ, 0)
    assert [path.name for path in registries.files if path.is_relative_to(tmp_path)] == [
        "explicit.conf",
        "10-first.conf",
        "20-last.conf",
    ]
    assert registries.candidates("a").references[0].domain == "last.example"

    # A registries.conf of the user shuts the system's drop-ins out, and a directory that was named all others.
    (user / "registries.conf").write_text("")
    registries = await load_registries(RegistryAccess(), environ, 0)
    assert registries.files == (user / "registries.conf", directory / "10-first.conf", directory / "20-last.conf")
    other = tmp_path / "other.d"
    other.mkdir()
    (other / "a.conf").write_text("")
    registries = await load_registries(RegistryAccess(registries_conf_dir=other), environ, 0)
    assert registries.files == (user / "registries.conf", other / "a.conf")


async def test_both_homes_of_a_user_are_looked_into(tmp_path: Path) -> None:
    xdg, home = tmp_path / "xdg/containers", tmp_path / ".config/containers"
    for directory, host in ((xdg, "xdg.example"), (home, "home.example")):
        (directory / "registries.conf.d").mkdir(parents=True)
        (directory / "registries.conf.d/a.conf").write_text(f'unqualified-search-registries = ["{host}"]')
        (directory / f"certs.d/{host}").mkdir(parents=True)
        (directory / f"certs.d/{host}/ca.crt").touch()
    (home / "registries.conf").write_text("")
    environ = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    registries = await load_registries(RegistryAccess(), environ, 0)
    assert registries.files == tuple(
        path / name
        for path, name in (
            (home, "registries.conf"),
            (home, "registries.conf.d/a.conf"),
            (xdg, "registries.conf.d/a.conf"),
        )
    )
    assert registries.candidates("x").references[0].domain == "xdg.example"
    for directory, host in ((xdg, "xdg.example"), (home, "home.example")):
        (endpoint,) = registries.endpoints(parse_reference(f"{host}/x"))
        assert endpoint.tls.authorities == (directory / f"certs.d/{host}/ca.crt",)


async def test_credential_helpers_default_to_the_files(tmp_path: Path) -> None:
    assert (await loaded(tmp_path, "")).credential_helpers == ("containers-auth.json",)
    assert (await loaded(tmp_path, "credential-helpers = []")).credential_helpers == ("containers-auth.json",)
    text = 'credential-helpers = ["pass", "containers-auth.json"]'
    assert (await loaded(tmp_path, text)).credential_helpers == ("pass", "containers-auth.json")
