"""``explain``: what every key of the configuration comes to, as the command tells it."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from asyncpull.cli import main
from tests.support.credential_program import credential_program
from tests.support.registries_conf import DIGEST, LOCATIONS, MIRROR, table

GOLDEN = Path(__file__).resolve().parent.parent / "registry/golden"


class Explainer:
    """The command in this process, with a registries.conf of the test."""

    def __init__(self, directory: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        self.directory, self._captured = directory, capfdbinary
        self.conf = directory / "registries.conf"
        self.conf.write_text("")

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """The exit code, stdout and stderr."""
        self._captured.readouterr()
        paths = ("--registries-conf", str(self.conf), "--registries-conf-dir", str(self.directory / "none"))
        code = main([*paths, "explain", *arguments])
        out, err = self._captured.readouterr()
        return code, out.decode(), err.decode()

    def __call__(self, reference: str, *arguments: str) -> dict[str, Any]:
        """What ``--json`` says of ``reference``."""
        code, out, err = self.run(reference, "--json", *arguments)
        assert (code, err) == (0, "")
        document: dict[str, Any] = json.loads(out)
        return document

    def only(self, reference: str, *arguments: str) -> dict[str, Any]:
        """What it says of the only candidate."""
        (candidate,) = self(reference, *arguments)["candidates"]
        return dict(candidate)


@pytest.fixture
def explain(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Explainer:
    return Explainer(tmp_path, capfdbinary)


# ---- the store


def test_the_store_its_driver_and_why(explain: Explainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root" / "btrfs").mkdir(parents=True)
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(tmp_path / "storage.conf"))
    text = f'[storage]\ngraphroot = "{tmp_path}/root"\nrunroot = "{tmp_path}/run"\n'
    (tmp_path / "storage.conf").write_text(text)
    place = {"graph_root": f"{tmp_path}/root"}
    assert explain("a.example/b")["store"] == {**place, "driver": "btrfs", "reason": "present in the graph root"}
    _, out, _ = explain.run("a.example/b")
    assert f"\nstore: btrfs in {tmp_path}/root (present in the graph root)\n" in out
    (tmp_path / "storage.conf").write_text(text + 'driver = "zfs"\n')
    assert "zfs" in explain("a.example/b")["store"]["problem"]


# ---- registries.conf


@pytest.mark.parametrize(("text", "reference", "expected"), LOCATIONS)
def test_locations(explain: Explainer, text: str, reference: str, expected: list[str] | None) -> None:
    explain.conf.write_text(text)
    found = explain.only(reference)
    # For what has a digest, mirrors for digests are asked too where the reference is a tag.
    asked = [each for each in found["endpoints"] if each["resolves_tags"]]
    shown = [("!" if each["insecure"] else "") + each["account"] for each in asked]
    if expected is None:
        assert found["rule"] == "none"
        assert shown == [f"{found['registry']}/{found['repository']}"]
    else:
        assert found["rule"].startswith("[[registry]] ")
        assert found["rule"].endswith(f" of {explain.conf}")
        assert shown == [re.sub(r"(@.*|:[^:/]*)$", "", each) for each in expected]
        assert [each["mirror"] for each in asked] == [True] * (len(expected) - 1) + [False]


@pytest.mark.parametrize(
    "text",
    [
        table(location='"a.example"', blocked="true"),
        table(prefix='"*.example"', blocked="true"),
        '[registries.block]\nregistries = ["a.example"]',
    ],
)
def test_blocked(explain: Explainer, text: str) -> None:
    explain.conf.write_text(text)
    found = explain.only("a.example/x:1")
    assert found["endpoints"] == []
    assert found["refused"].startswith("a.example/x:1: registry ")
    assert found["refused"].endswith(f" is blocked by {explain.conf}")


@pytest.mark.parametrize(
    ("text", "reference", "references", "reason"),
    [
        ("", "x", ["docker.io/library/x:latest"], "no registries are configured for short names"),
        ("", "a.example/x", ["a.example/x:latest"], "the reference names its registry"),
        ("", "docker://x:1", ["docker.io/library/x:1"], "the reference names its registry"),
        (
            'unqualified-search-registries = ["a.example", "docker.io"]',
            "x:1",
            ["a.example/x:1", "docker.io/library/x:1"],
            "unqualified-search-registries of {conf}",
        ),
        (
            '[registries.search]\nregistries = ["a.example"]',
            "ns/x",
            ["a.example/ns/x:latest"],
            "unqualified-search-registries of {conf}",
        ),
        ('[aliases]\nx = "a.example/y"', f"x@{DIGEST}", [f"a.example/y@{DIGEST}"], "x is an alias in {conf}"),
    ],
)
def test_short_names(explain: Explainer, text: str, reference: str, references: list[str], reason: str) -> None:
    explain.conf.write_text(text)
    found = explain(reference)
    assert [each["reference"] for each in found["candidates"]] == references
    assert found["reason"] == reason.format(conf=explain.conf)


@pytest.mark.parametrize(
    ("text", "mode", "needs_choice", "is_enforced"),
    [
        ("", "permissive", True, False),
        ('short-name-mode = "permissive"', "permissive", True, False),
        ('short-name-mode = "enforcing"', "enforcing", True, True),
        ('short-name-mode = "disabled"', "disabled", False, False),
    ],
)
def test_short_name_modes(explain: Explainer, text: str, mode: str, needs_choice: bool, is_enforced: bool) -> None:
    explain.conf.write_text('unqualified-search-registries = ["a.example", "b.example"]\n' + text)
    found = explain("x")
    assert (found["short_name_mode"], found["needs_choice"], found["is_enforced"]) == (mode, needs_choice, is_enforced)
    assert len(found["candidates"]) == 2


@pytest.mark.parametrize(
    ("text", "helpers"),
    [
        ("", ["containers-auth.json"]),
        ("credential-helpers = []", ["containers-auth.json"]),
        ('credential-helpers = ["none"]', ["none"]),
    ],
)
def test_credential_helpers(explain: Explainer, text: str, helpers: list[str]) -> None:
    explain.conf.write_text(text)
    assert explain("a.example/x")["credential_helpers"] == helpers


def test_a_mistake_is_named_and_64(explain: Explainer) -> None:
    explain.conf.write_text(table(location='"a.example"', blocked='"yes"'))
    code, out, err = explain.run("a.example/x")
    assert (code, out) == (64, "")
    assert err == f"asyncpull: {explain.conf}: registry[0].blocked: is a string, not true or false\n"


def test_files_that_were_read(explain: Explainer) -> None:
    home = Path(os.environ["HOME"])
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text("{}")
    assert explain("a.example/x")["files"] == [str(explain.conf), str(home / ".docker/config.json")]


# ---- auth.json


def auth(name: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{name}:hush".encode()).decode()}


def auths(*keys: str) -> dict[str, object]:
    """A file in which each key has a user of its own."""
    return {"auths": {key: auth(f"user{number}") for number, key in enumerate(keys)}}


PLACES = {
    "runtime": "run/containers/auth.json",
    "config": ".config/containers/auth.json",
    "docker": ".docker/config.json",
    "old": ".dockercfg",
}


@pytest.mark.parametrize(
    ("files", "reference", "source", "username"),
    [
        ({}, "a.example/ns/x", None, None),
        # the files, in their order
        ({"runtime": auths("a.example")}, "a.example/x", '{runtime}: auths["a.example"]', "user0"),
        ({"config": auths("a.example")}, "a.example/x", '{config}: auths["a.example"]', "user0"),
        ({"docker": auths("a.example")}, "a.example/x", '{docker}: auths["a.example"]', "user0"),
        ({"old": {"a.example": auth("old")}}, "a.example/x", '{old}: ["a.example"]', "old"),
        (
            {"runtime": auths("b.example"), "config": auths("a.example"), "docker": auths("a.example/x")},
            "a.example/x",
            '{config}: auths["a.example"]',
            "user0",
        ),
        # the keys, from the most specific
        (
            {"runtime": auths("a.example", "a.example/ns", "a.example/ns/x")},
            "a.example/ns/x",
            '{runtime}: auths["a.example/ns/x"]',
            "user2",
        ),
        (
            {"runtime": auths("a.example", "a.example/ns")},
            "a.example/ns/x",
            '{runtime}: auths["a.example/ns"]',
            "user1",
        ),
        ({"runtime": auths("a.example/ns")}, "a.example/nsx", None, None),
        ({"runtime": auths("a.example")}, "a.example:5000/x", None, None),
        # other spellings of a registry
        (
            {"docker": auths("https://a.example/v1/")},
            "a.example/x",
            '{docker}: auths["https://a.example/v1/"]',
            "user0",
        ),
        (
            {"docker": auths("https://index.docker.io/v1/")},
            "docker.io/library/x",
            '{docker}: auths["https://index.docker.io/v1/"]',
            "user0",
        ),
        ({"runtime": auths("docker.io")}, "docker.io/ns/x", '{runtime}: auths["docker.io"]', "user0"),
        # an empty entry ends the search in its file
        ({"runtime": {"auths": {"a.example/x": {}, "a.example": auth("no")}}}, "a.example/x", None, None),
        # an identity token has no user to be shown
        (
            {"runtime": {"auths": {"a.example": {"identitytoken": "hush"}}}},
            "a.example/x",
            '{runtime}: auths["a.example"]',
            None,
        ),
        # programs
        (
            {"runtime": {"credHelpers": {"a.example": "one"}, **auths("a.example/x")}},
            "a.example/x",
            "docker-credential-one (credHelpers of {runtime})",
            "kept",
        ),
        ({"runtime": {"credHelpers": {"b.example": "one"}}}, "a.example/x", None, None),
        (
            {"docker": {"credsStore": "one"}},
            "a.example/x",
            "docker-credential-one (credsStore of {docker})",
            "kept",
        ),
        (
            {"docker": {"credsStore": "one", **auths("a.example")}},
            "a.example/x",
            '{docker}: auths["a.example"]',
            "user0",
        ),
    ],
)
def test_credentials(
    explain: Explainer,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, dict[str, object]],
    reference: str,
    source: str | None,
    username: str | None,
) -> None:
    home = Path(os.environ["HOME"])
    for name, document in files.items():
        path = home / PLACES[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
    credential_program(explain.directory / "bin", "one", {"a.example": ("kept", "hush")})
    monkeypatch.setenv("PATH", f"{explain.directory / 'bin'}:/usr/bin:/bin")
    (endpoint,) = explain.only(reference)["endpoints"]
    places = {name: home / place for name, place in PLACES.items()}
    assert endpoint["credentials"] == (None if source is None else source.format(**places))
    assert endpoint["username"] == username
    assert endpoint["problems"] == []
    assert "hush" not in explain.run(reference, "--json")[1] + explain.run(reference)[1]


@pytest.mark.parametrize("is_option", [True, False])
def test_a_file_that_was_named_is_the_only_one(
    explain: Explainer, monkeypatch: pytest.MonkeyPatch, is_option: bool
) -> None:
    usual = Path(os.environ["HOME"]) / PLACES["docker"]
    usual.parent.mkdir()
    usual.write_text(json.dumps(auths("a.example", "b.example")))
    named = explain.directory / "auth.json"
    named.write_text(json.dumps(auths("a.example")))
    if not is_option:
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(named))
    options = ("--authfile", str(named)) if is_option else ()
    assert explain.only("a.example/x", *options)["endpoints"][0]["credentials"] == f'{named}: auths["a.example"]'
    assert explain.only("b.example/x", *options)["endpoints"][0]["credentials"] is None


def test_helpers_of_registries_conf(explain: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    explain.conf.write_text('credential-helpers = ["one", "containers-auth.json"]')
    credential_program(explain.directory / "bin", "one", {"a.example": ("kept", "hush")})
    monkeypatch.setenv("PATH", f"{explain.directory / 'bin'}:/usr/bin:/bin")
    (endpoint,) = explain.only("a.example/x")["endpoints"]
    assert endpoint["credentials"] == "docker-credential-one (credential-helpers of registries.conf)"


def test_each_mirror_has_its_own_credentials(explain: Explainer) -> None:
    explain.conf.write_text(table(location='"a.example"') + MIRROR)
    authfile = explain.directory / "auth.json"
    authfile.write_text(json.dumps(auths("a.example", "m.example/x")))
    found = explain.only("a.example/x", "--authfile", str(authfile))
    assert [each["username"] for each in found["endpoints"]] == ["user1", "user0"]


def test_what_keeps_credentials_from_being_found_is_told(explain: Explainer) -> None:
    authfile = explain.directory / "auth.json"
    authfile.write_text('{"auths": {"a.example": {"auth": "?"}}}')
    (endpoint,) = explain.only("a.example/x", "--authfile", str(authfile))["endpoints"]
    assert endpoint["credentials"] is None
    assert endpoint["problems"] == [f"{authfile}: auths['a.example'].auth is not base64 of text"]


# ---- certificates, proxies, hosts.toml, platform


def test_certificates(explain: Explainer) -> None:
    directory = Path(os.environ["HOME"]) / ".config/containers/certs.d/a.example"
    directory.mkdir(parents=True)
    for name in ("ca.crt", "me.cert", "me.key"):
        (directory / name).touch()
    (endpoint,) = explain.only("a.example/x")["endpoints"]
    assert endpoint["authorities"] == [str(directory / "ca.crt")]
    assert endpoint["clients"] == [[str(directory / "me.cert"), str(directory / "me.key")]]
    (endpoint,) = explain.only("b.example/x", "--cert-dir", str(directory))["endpoints"]
    assert endpoint["authorities"] == [str(directory / "ca.crt")]
    (directory / "me.key").unlink()
    assert explain.only("a.example/x")["refused"] == f"{directory}: me.cert has no me.key"


def test_proxies(explain: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hush@proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "b.example")
    assert explain.only("a.example/x")["endpoints"][0]["proxy"] == "http://me:…@proxy.example:3128"
    assert explain.only("b.example/x")["endpoints"][0]["proxy"] is None
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.example")
    (endpoint,) = explain.only("a.example/x")["endpoints"]
    assert endpoint["problems"] == ["HTTPS_PROXY: a proxy of scheme 'socks5' cannot be used"]


@pytest.mark.parametrize(
    ("options", "insecure", "urls"),
    [
        ((), False, ["https://a.example/v2/x"]),
        (("--tls-verify=false",), True, ["https://a.example/v2/x", "http://a.example/v2/x"]),
        (("--tls-verify=true",), False, ["https://a.example/v2/x"]),
    ],
)
def test_tls_verify(explain: Explainer, options: tuple[str, ...], insecure: bool, urls: list[str]) -> None:
    (endpoint,) = explain.only("a.example/x", *options)["endpoints"]
    assert (endpoint["insecure"], endpoint["urls"]) == (insecure, urls)


def test_platform(explain: Explainer) -> None:
    assert explain("a.example/x", "--platform", "linux/arm64")["platform"] == "linux/arm64"


def test_every_key_of_hosts_toml(explain: Explainer) -> None:
    hosts = GOLDEN / "hosts"
    found = explain.only("alpine:3", "--hosts-dir", str(hosts))
    here = hosts / "docker.io"
    assert found["rule"] == str(here)
    assert [(each["urls"], each["resolves_tags"], each["serves_blobs"]) for each in found["endpoints"]] == [
        (["https://pull.example/v2/library/alpine"], False, True),
        (["http://resolve.example:5000/v2/library/alpine"], True, False),
        (["https://odd.example/v2/hub/library/alpine"], True, True),
        (["https://registry-1.docker.io/v2/library/alpine"], True, True),
    ]
    assert [each["namespace"] for each in found["endpoints"]] == ["docker.io"] * 3 + [None]
    pull, _resolve, odd, _itself = found["endpoints"]
    assert pull["authorities"] == [str(here / "pull.crt"), "/etc/ssl/other.crt"]
    assert pull["clients"] == [[str(here / "pull.cert"), str(here / "pull.key")], [str(here / "both.pem")] * 2]
    assert (odd["insecure"], odd["headers"]) == (True, ["x-token"])
    assert "hush" not in explain.run("alpine:3", "--hosts-dir", str(hosts))[1]


def test_what_is_wrong_for_one_registry_is_told_there(explain: Explainer) -> None:
    explain.conf.write_text('unqualified-search-registries = ["a.example", "b.example"]')
    directory = explain.directory / "hosts/a.example"
    directory.mkdir(parents=True)
    (directory / "hosts.toml").write_text("server = 7")
    first, second = explain("x", "--hosts-dir", str(directory.parent))["candidates"]
    assert first["refused"] == f"{directory}/hosts.toml: server: is a number, not a string"
    assert second["refused"] is None


# ---- all of it, as people see it


def explained(capfdbinary: pytest.CaptureFixture[bytes], *arguments: str) -> str:
    conf = ("--registries-conf", str(GOLDEN / "registries.conf"))
    assert main([*conf, "--registries-conf-dir", str(GOLDEN / "registries.conf.d"), "explain", *arguments]) == 0
    return capfdbinary.readouterr().out.decode().replace(str(GOLDEN), "GOLDEN")


def test_the_text(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    options = ("--platform", "linux/amd64")
    repository = f"registry.example:5000/team/x@{DIGEST}"
    texts = ["short", "docker.io/library/a:1", repository, "a.closed.example/x", "gone"]
    written = "\n".join(explained(capfdbinary, text, *options) for text in texts)
    # Where the store is depends on the machine, and which policy it has.
    assert re.sub(r"(?m)^(?:store|policy): .*\n", "", written) == (GOLDEN / "explain.txt").read_text()


def test_version_1(explain: Explainer) -> None:
    explain.conf = GOLDEN / "v1.conf"
    found = explain("x")
    assert [each["registry"] for each in found["candidates"]] == ["registry.example:5000", "docker.io"]
    assert [each["endpoints"][0]["insecure"] for each in found["candidates"]] == [True, False]
    assert explain.only("closed.example/x")["refused"] is not None


# ---- the policy


def test_the_rule_of_the_policy(explain: Explainer, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    rules = {"docker": {"a.example": [{"type": "insecureAcceptAnything"}, {"type": "reject"}]}}
    path.write_text(json.dumps({"default": [{"type": "reject"}], "transports": rules}))
    (found,) = explain("a.example/b", "--policy", str(path))["policy"]
    assert found == {
        "reference": "a.example/b:latest",
        "policy": str(path),
        "scope": 'transports.docker."a.example"',
        "requires": "insecureAcceptAnything, reject",
    }
    _, out, _ = explain.run("b.example/b", "--policy", str(path))
    assert f"\npolicy: default of {path} for b.example/b:latest: reject\n" in out
    path.write_text("{}")
    _, out, _ = explain.run("b.example/b", "--policy", str(path))
    assert f"\npolicy: {path}: default is missing\n" in out
