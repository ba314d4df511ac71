"""containerd's hosts.toml, key by key, and how it goes together with registries.conf."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpull.errors import ConfigurationError, PolicyError
from asyncpull.registry.config import Registries, RegistryAccess, load_registries
from asyncpull.registry.hosts import HostRule, HostsDirectory, HostsFile
from asyncpull.spec.reference import parse_reference
from asyncpull.tls import TlsFiles

DIRECTORY = Path("/hosts/docker.io")
ITSELF = HostRule()


def rules(text: str) -> tuple[HostRule, ...]:
    return HostsFile.from_bytes(DIRECTORY, text.encode()).rules


def pem(*names: str) -> tuple[Path, ...]:
    return tuple(DIRECTORY / name for name in names)


def pair(certificate: str, key: str) -> tuple[Path, Path]:
    return DIRECTORY / certificate, DIRECTORY / key


M = '[host."https://m.example"]\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# nothing", [ITSELF]),
        # server
        ('server = "https://s.example"', [HostRule("s.example", "https")]),
        ('server = "s.example:5000"', [HostRule("s.example:5000", "https")]),
        ('server = "http://s.example/v2/"', [HostRule("s.example", "http")]),
        # the hosts, in the order of the file, before the server
        (
            '[host."https://z.example"]\n[host."http://a.example:5000"]\n[host."https://m.example/ns"]',
            [
                HostRule("z.example", "https"),
                HostRule("a.example:5000", "http"),
                HostRule("m.example", "https", "/ns/v2"),
                ITSELF,
            ],
        ),
        ('server = "https://s.example"\n' + M, [HostRule("m.example", "https"), HostRule("s.example", "https")]),
        # override_path
        ('[host."https://m.example/v2/up"]\noverride_path = true', [HostRule("m.example", "https", "/v2/up"), ITSELF]),
        ('[host."https://m.example/v2/up/"]', [HostRule("m.example", "https", "/v2/up/v2"), ITSELF]),
        ('[host."https://m.example"]\noverride_path = true', [HostRule("m.example", "https", ""), ITSELF]),
        # capabilities
        (M + 'capabilities = ["pull"]', [HostRule("m.example", "https", resolves=False), ITSELF]),
        (M + 'capabilities = ["Resolve"]', [HostRule("m.example", "https", pulls=False), ITSELF]),
        (M + 'capabilities = ["pull", "resolve", "push", "referrers"]', [HostRule("m.example", "https"), ITSELF]),
        (M + 'capabilities = ["push"]', [HostRule("m.example", "https", pulls=False, resolves=False), ITSELF]),
        (M + "capabilities = []", [HostRule("m.example", "https"), ITSELF]),
        ('capabilities = ["push"]', [ITSELF]),
        ('server = "s.example"\ncapabilities = ["pull"]', [HostRule("s.example", "https", resolves=False)]),
        # ca
        (M + 'ca = "m.crt"', [HostRule("m.example", "https", tls=TlsFiles(pem("m.crt"))), ITSELF]),
        (
            M + 'ca = ["/a.crt", "b.crt"]',
            [HostRule("m.example", "https", tls=TlsFiles(pem("/a.crt", "b.crt"))), ITSELF],
        ),
        ('ca = "m.crt"', [HostRule(tls=TlsFiles(pem("m.crt")))]),
        # client
        *(
            (M + f"client = {client}", [HostRule("m.example", "https", tls=TlsFiles(clients=clients)), ITSELF])
            for client, clients in [
                ('"c.pem"', (pair("c.pem", "c.pem"),)),
                ('["c.pem", "/d.pem"]', (pair("c.pem", "c.pem"), pair("/d.pem", "/d.pem"))),
                ('[["c.cert", "c.key"], ["d.pem", ""]]', (pair("c.cert", "c.key"), pair("d.pem", "d.pem"))),
                ("[]", ()),
            ]
        ),
        # skip_verify
        (M + "skip_verify = true", [HostRule("m.example", "https", skip_verify=True), ITSELF]),
        (M + "skip_verify = false", [HostRule("m.example", "https", skip_verify=False), ITSELF]),
        ("skip_verify = true", [HostRule(skip_verify=True)]),
        # header
        (
            M + '[host."https://m.example".header]\nx-a = "1"\nx-b = ["2", "3"]',
            [HostRule("m.example", "https", headers=(("x-a", "1"), ("x-b", "2"), ("x-b", "3"))), ITSELF],
        ),
        ('[header]\nx-a = "1"', [HostRule(headers=(("x-a", "1"),))]),
        # dial_timeout
        (M + 'dial_timeout = "1m30.5s"', [HostRule("m.example", "https"), ITSELF]),
    ],
)
def test_what_the_file_says(text: str, expected: list[HostRule]) -> None:
    assert list(rules(text)) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server = ", "not TOML"),
        ("server = 7", "server: is a number, not a string"),
        ('server = "ftp://s.example"', "'ftp://s.example' is not"),
        ('server = "https://"', "'https://' is not the URL of a registry"),
        ('server = "https://s.example:port"', "'https://s.example:port' is not a URL"),
        ('server = "https://me:hush@s.example"', "the URL of a host has no user and no password"),
        ("host = 7", "host: is a number, not a table"),
        ('[host]\n"https://m.example" = 7', "host.https://m.example: is a number, not a table"),
        (M + 'capabilities = "pull"', "host.https://m.example.capabilities: is a string, not an array of strings"),
        (M + 'capabilities = ["pul"]', "host.https://m.example.capabilities[0]: 'pul' is none of pull, resolve"),
        (M + "ca = 7", "host.https://m.example.ca: is a number, not an array of strings"),
        (M + "ca = [7]", "host.https://m.example.ca[0]: is a number, not a string"),
        (M + "client = 7", "host.https://m.example.client[0]: is neither a file nor a pair"),
        (M + 'client = [["a", "b", "c"]]', "host.https://m.example.client[0]: is neither a file nor a pair"),
        (M + 'skip_verify = "yes"', "host.https://m.example.skip_verify: is a string, not true or false"),
        (M + "override_path = 1", "host.https://m.example.override_path: is a number, not true or false"),
        (M + 'dial_timeout = "soon"', "host.https://m.example.dial_timeout: 'soon' is not a duration"),
        (M + "header = 7", "host.https://m.example.header: is a number, not a table"),
        (M + "header.x-a = 7", "host.https://m.example.header.x-a: is a number, not an array of strings"),
        (M + 'header.x-a = "1\\r\\nx-b: 2"', "host.https://m.example.header.x-a: a header has one line"),
    ],
)
def test_what_is_refused_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        rules(text)
    assert str(caught.value).startswith(f"{DIRECTORY}/hosts.toml: ")
    assert said in str(caught.value)
    assert "hush" not in str(caught.value)


def test_values_of_headers_are_not_shown() -> None:
    assert "hush" not in repr(rules('[header]\nx-token = "hush"'))


@pytest.mark.parametrize(
    ("directories", "domain", "expected"),
    [
        (["a.example"], "a.example", "a.example"),
        (["a.example"], "b.example", None),
        (["a.example", "_default"], "b.example", "_default"),
        (["a.example"], "a.example:5000", None),
        (["a.example_5000_", "a.example:5000", "_default"], "a.example:5000", "a.example_5000_"),
        (["a.example:5000", "_default"], "a.example:5000", "a.example:5000"),
        (["[::1]_5000_"], "[::1]:5000", "[::1]_5000_"),
    ],
)
def test_which_directory_counts(tmp_path: Path, directories: list[str], domain: str, expected: str | None) -> None:
    for name in directories:
        (tmp_path / name).mkdir()
    found = HostsDirectory.read(tmp_path).for_registry(domain)
    assert (None if found is None else found.path.name) == expected


def test_a_directory_without_the_file_holds_certificates(tmp_path: Path) -> None:
    here = tmp_path / "a.example"
    here.mkdir()
    for name in ("ca.crt", "c.cert", "c.key"):
        (here / name).touch()
    found = HostsDirectory.read(tmp_path).for_registry("a.example")
    assert found is not None
    assert found.rules == (HostRule(tls=TlsFiles((here / "ca.crt",), ((here / "c.cert", here / "c.key"),))),)


def test_what_is_wrong_for_one_registry_concerns_no_other(tmp_path: Path) -> None:
    for name, text in (("bad.example", "server = 7"), ("good.example", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hosts.toml").write_text(text)
    hosts = HostsDirectory.read(tmp_path)
    assert hosts.for_registry("good.example") is not None
    with pytest.raises(ConfigurationError) as caught:
        hosts.for_registry("bad.example")
    assert str(caught.value).startswith(str(tmp_path / "bad.example/hosts.toml"))
    with pytest.raises(ConfigurationError):
        HostsDirectory.read(tmp_path / "none")


async def loaded(tmp_path: Path, hosts: str, conf: str = "", **said: object) -> Registries:
    directory = tmp_path / "hosts/docker.io"
    directory.mkdir(parents=True)
    (directory / "hosts.toml").write_text(hosts)
    (tmp_path / "registries.conf").write_text(conf)
    access: dict[str, object] = {
        "hosts_dir": tmp_path / "hosts",
        "registries_conf": tmp_path / "registries.conf",
        "registries_conf_dir": tmp_path / "none",
        **said,
    }
    return await load_registries(RegistryAccess(**access), {}, 0)  # type: ignore[arg-type]  # as the tests name them


async def test_endpoints(tmp_path: Path) -> None:
    registries = await loaded(
        tmp_path,
        """
        [host."https://m.example/v2/hub"]
        override_path = true
        capabilities = ["pull"]
        ca = "m.crt"
        header.x-token = "hush"
        [host."http://plain.example:5000"]
        capabilities = ["resolve"]
        [host."http://both.example"]
        skip_verify = true
        [host."https://bare.example"]
        skip_verify = true
        [host."https://push.example"]
        capabilities = ["push"]
        """,
    )
    hub, plain, both, bare, itself = registries.endpoints(parse_reference("alpine"))
    assert (hub.host, hub.prefix, hub.repository, hub.account) == (
        "m.example",
        "/v2/hub",
        "library/alpine",
        "m.example/library/alpine",
    )
    assert (hub.is_mirror, hub.namespace, hub.resolves_tags, hub.serves_blobs) == (True, "docker.io", False, True)
    assert (hub.schemes, hub.insecure) == (("https",), False)
    assert hub.tls == TlsFiles((tmp_path / "hosts/docker.io/m.crt",))
    assert hub.headers == (("x-token", "hush"),)
    assert "hush" not in repr(hub)
    assert (plain.schemes, plain.insecure, plain.resolves_tags, plain.serves_blobs) == (("http",), False, True, False)
    assert (both.schemes, both.insecure) == (("https", "http"), True)
    assert (bare.schemes, bare.insecure) == (("https",), True)
    assert itself == Registries().endpoints(parse_reference("alpine"))[0]


@pytest.mark.parametrize("server", ["https://registry-1.docker.io", "https://docker.io"])
async def test_the_registry_by_its_own_name_is_no_mirror(tmp_path: Path, server: str) -> None:
    (endpoint,) = (await loaded(tmp_path, f'server = "{server}"')).endpoints(parse_reference("alpine"))
    assert (endpoint.host, endpoint.is_mirror, endpoint.namespace) == ("registry-1.docker.io", False, None)
    assert endpoint.account == "docker.io/library/alpine"


CONF = """
[[registry]]
location = "docker.io"
insecure = true
[[registry.mirror]]
location = "unused.example"
[[registry]]
location = "docker.io/closed"
blocked = true
"""


async def test_it_decides_the_endpoints_but_not_what_is_blocked(tmp_path: Path) -> None:
    registries = await loaded(tmp_path, M, CONF)
    endpoints = registries.endpoints(parse_reference("alpine"))
    assert [(each.host, each.insecure) for each in endpoints] == [("m.example", False), ("registry-1.docker.io", True)]
    with pytest.raises(PolicyError):
        registries.endpoints(parse_reference("closed/x"))


@pytest.mark.parametrize(("tls_verify", "hosts"), [(True, ["m.example"]), (False, ["p.example", "m.example"])])
async def test_tls_verify_leaves_plain_http_out(tmp_path: Path, tls_verify: bool, hosts: list[str]) -> None:
    text = 'server = "https://m.example"\nskip_verify = true\n[host."http://p.example"]'
    registries = await loaded(tmp_path, text, tls_verify=tls_verify)
    endpoints = registries.endpoints(parse_reference("alpine"))
    assert [each.host for each in endpoints] == hosts
    assert {each.insecure for each in endpoints} == {not tls_verify}


async def test_nobody_to_ask_is_an_error(tmp_path: Path) -> None:
    registries = await loaded(tmp_path, 'server = "http://p.example"', tls_verify=True)
    with pytest.raises(ConfigurationError) as caught:
        registries.endpoints(parse_reference("alpine"))
    assert str(tmp_path / "hosts/docker.io") in str(caught.value)
