"""Which store is meant: files, environment, explicit wishes; and what is refused, with a way out."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from asyncpull.errors import ConfigurationError
from asyncpull.store.config import StoreConfig, StoreOverrides, load_config
from asyncpull.store.storageconf import unknown_keys


class Machine:
    """A machine with configuration directories of its own."""

    def __init__(self, root: Path) -> None:
        self.etc, self.share, self.home = root / "etc", root / "share", root / "home"
        for directory in (self.etc, self.share, self.home / ".config/containers"):
            directory.mkdir(parents=True)
        self.graph, self.run = root / "graph", root / "run"

    def config(
        self, environ: dict[str, str] | None = None, uid: int = 0, overrides: StoreOverrides | None = None
    ) -> StoreConfig:
        environ = {"HOME": str(self.home), **(environ or {})}
        return load_config(environ, uid, overrides, system_directories=(self.etc, self.share))

    def storage_conf(self, text: str, directory: Path | None = None) -> Path:
        path = (directory or self.etc) / "storage.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def roots(self, **more: str) -> str:
        lines = [f'{key} = "{value}"' for key, value in {"graphroot": self.graph, "runroot": self.run, **more}.items()]
        return "\n".join(["[storage]", *lines, ""])


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_defaults_of_root(machine: Machine) -> None:
    config = machine.config()
    assert config.graph_root == Path("/var/lib/containers/storage")
    assert config.run_root == Path("/run/containers/storage").resolve()
    assert (config.driver, config.options, config.is_synced) == ("overlay", {}, True)


def test_defaults_of_a_user(machine: Machine) -> None:
    config = machine.config({"XDG_RUNTIME_DIR": "/run/user/1000"}, uid=1000)
    assert config.graph_root == machine.home / ".local/share/containers/storage"
    assert config.run_root == Path("/run/user/1000/containers").resolve()
    assert config.rootless
    config = machine.config({"XDG_DATA_HOME": str(machine.home / "data"), "TMPDIR": "/var/tmp"}, uid=4711)
    assert config.graph_root == machine.home / "data/containers/storage"
    assert config.run_root == Path("/var/tmp/storage-run-4711/containers")


def test_inside_of_a_user_namespace_the_user_stays_the_same(machine: Machine) -> None:
    inside = {
        "_CONTAINERS_USERNS_CONFIGURED": "done",
        "_CONTAINERS_ROOTLESS_UID": "1000",
        "XDG_RUNTIME_DIR": "/run/user/1000",
    }
    config = machine.config(inside, uid=0)
    assert config.rootless
    assert config == machine.config({"XDG_RUNTIME_DIR": "/run/user/1000"}, uid=1000)


def test_the_system_file(machine: Machine) -> None:
    machine.storage_conf(machine.roots(driver="overlay") + '[storage.options]\nmountopt = "nodev"\n')
    config = machine.config()
    assert (config.graph_root, config.run_root) == (machine.graph, machine.run)
    assert config.mount_options == ("nodev",)
    assert config.reason == "storage.conf"


def test_etc_comes_before_usr_share(machine: Machine) -> None:
    machine.storage_conf('[storage]\ngraphroot = "/from/share"\n', machine.share)
    assert machine.config().graph_root == Path("/from/share")
    machine.storage_conf("[storage]\n")
    assert machine.config().graph_root == Path("/var/lib/containers/storage")


def test_a_users_own_file(machine: Machine) -> None:
    machine.storage_conf('[storage]\ngraphroot = "/from/etc"\n')
    machine.storage_conf(machine.roots(), machine.home / ".config/containers")
    assert machine.config(uid=1000).graph_root == machine.graph
    assert machine.config(uid=0).graph_root == Path("/from/etc")
    xdg = machine.home / "xdg"
    machine.storage_conf('[storage]\ngraphroot = "/from/xdg"\n', xdg / "containers")
    assert machine.config({"XDG_CONFIG_HOME": str(xdg)}).graph_root == Path("/from/xdg")


def test_the_file_of_the_environment_is_the_only_one(machine: Machine) -> None:
    machine.storage_conf(machine.roots())
    (machine.etc / "storage.conf.d").mkdir()
    (machine.etc / "storage.conf.d/a.conf").write_text('[storage]\ngraphroot = "/from/drop-in"\n')
    other = machine.home / "other.conf"
    other.write_text('[storage]\nrunroot = "/from/other"\n')
    config = machine.config({"CONTAINERS_STORAGE_CONF": str(other)})
    assert config.graph_root == Path("/var/lib/containers/storage")
    assert config.run_root == Path("/from/other")
    with pytest.raises(ConfigurationError, match=r"missing\.conf"):
        machine.config({"CONTAINERS_STORAGE_CONF": str(machine.home / "missing.conf")})


def test_drop_ins_by_name_the_more_specific_place_first(machine: Machine) -> None:
    machine.storage_conf(machine.roots())
    for directory, name, graph in (
        (machine.share / "storage.conf.d", "50.conf", "/share/50"),
        (machine.etc / "storage.conf.d", "50.conf", "/etc/50"),
        (machine.share / "storage.conf.d", "40.conf", "/share/40"),
        (machine.etc / "storage.rootless.conf.d/1000", "60.conf", "/user/60"),
        (machine.etc / "storage.rootful.conf.d", "55.conf", "/rootful/55"),
    ):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(f'[storage]\ngraphroot = "{graph}"\n')
    assert machine.config().graph_root == Path("/rootful/55")
    assert machine.config(uid=1000).graph_root == Path("/user/60")
    assert machine.config(uid=1001).graph_root == Path("/etc/50")
    assert machine.config(uid=1001).run_root == machine.run
    last = machine.home / "last.conf"
    last.write_text('[storage]\ngraphroot = "/last"\n')
    assert machine.config({"CONTAINERS_STORAGE_CONF_OVERRIDE": str(last)}).graph_root == Path("/last")


def test_variables_and_links_in_roots(machine: Machine) -> None:
    (machine.home / "real").mkdir()
    (machine.home / "link").symlink_to("real")
    machine.storage_conf('[storage]\ngraphroot = "$HOME/link/$UID"\nrunroot = "${HOME}/run"\n')
    config = machine.config(uid=1000)
    assert config.graph_root == machine.home / "real/1000"
    assert config.run_root == machine.home / "run"


def test_explicit_wishes_win_and_void_configured_options(machine: Machine) -> None:
    machine.storage_conf(machine.roots() + '[storage.options.overlay]\nmountopt = "nodev"\n')
    wishes = StoreOverrides(graph_root=machine.home / "mine", run_root=machine.home / "run")
    config = machine.config(overrides=wishes)
    assert (config.graph_root, config.run_root) == (machine.home / "mine", machine.home / "run")
    assert config.mount_options == ()
    wishes = StoreOverrides(graph_root=machine.home / "mine", options=("overlay.mountopt=noatime,nodev", "sync=none"))
    config = machine.config(overrides=wishes)
    assert config.mount_options == ("noatime", "nodev")
    assert not config.is_synced


def test_options_of_the_environment_replace_those_of_the_file(machine: Machine) -> None:
    machine.storage_conf(machine.roots() + '[storage.options]\nmountopt = "nodev"\nignore_chown_errors = true\n')
    assert machine.config().ignore_chown_errors
    config = machine.config({"STORAGE_OPTS": "overlay.sync=none,"})
    assert config.options == {"sync": "none"}


def test_the_drivers_own_table_wins(machine: Machine) -> None:
    machine.storage_conf(
        machine.roots() + '[storage.options]\nmountopt = "nodev"\n[storage.options.overlay]\nmountopt = "noatime"\n'
    )
    assert machine.config().mount_options == ("noatime",)


def test_a_mount_program(machine: Machine) -> None:
    assert machine.config().mount_program == ""
    machine.storage_conf(machine.roots() + '[storage.options]\nmount_program = "/general"\n')
    assert machine.config().mount_program == "/general"
    machine.storage_conf(machine.roots() + '[storage.options.overlay]\nmount_program = "/own"\n')
    assert machine.config().mount_program == "/own"
    assert machine.config({"STORAGE_OPTS": "overlay.mount_program=/set"}).mount_program == "/set"


@pytest.mark.parametrize("name", ["overlay", "overlay2"])
def test_the_driver_by_both_of_its_names(machine: Machine, name: str) -> None:
    config = machine.config({"STORAGE_DRIVER": name})
    assert (config.driver, config.reason) == ("overlay", "STORAGE_DRIVER")


def test_an_overlay_store_is_recognised(machine: Machine) -> None:
    (machine.graph / "overlay").mkdir(parents=True)
    machine.storage_conf(machine.roots())
    assert machine.config().reason == "present in the graph root"


@pytest.mark.parametrize(
    "environ_or_text",
    [
        {"STORAGE_DRIVER": "zfs"},
        {"STORAGE_OPTS": "nonsense"},
        {"STORAGE_OPTS": "sync=sometimes"},
        'driver = "aufs"',
        "driver = 1",
        'driver_priority = "overlay"',
        'imagestore = "relative"',
        'transient_store = "perhaps"',
        {"STORAGE_OPTS": "overlay.unheard_of=1"},
        {"STORAGE_OPTS": "overlay.imagestore=relative"},
        {"STORAGE_OPTS": "overlay.imagestore=/missing/store"},
        {"STORAGE_OPTS": "ignore_chown_errors=perhaps"},
        '[storage.options]\nadditionalimagestores = "no list"',
        'graphroot = "relative"',
        '[storage.options.overlay]\nforce_mask = "shared"',
        '[storage.options.overlay]\nuse_composefs = "true"',
        'options = "none"',
        "not toml",
        "a = " + "[" * 3000,
        "a = " + "9" * 5000,
    ],
)
def test_refuses_what_cannot_be_used_yet(machine: Machine, environ_or_text: dict[str, str] | str) -> None:
    environ = environ_or_text if isinstance(environ_or_text, dict) else {}
    if isinstance(environ_or_text, str):
        machine.storage_conf(f"[storage]\n{environ_or_text}\n")
    with pytest.raises(ConfigurationError):
        machine.config(environ)


def test_refuses_a_store_of_another_driver(machine: Machine) -> None:
    (machine.graph / "zfs").mkdir(parents=True)
    machine.storage_conf(machine.roots())
    with pytest.raises(ConfigurationError, match="zfs") as caught:
        machine.config()
    assert caught.value.hint
    (machine.graph / "overlay").mkdir()
    with pytest.raises(ConfigurationError, match="several"):
        machine.config()


def test_refuses_one_root_for_both(machine: Machine) -> None:
    machine.storage_conf(f'[storage]\ngraphroot = "{machine.graph}"\nrunroot = "{machine.graph}"\n')
    with pytest.raises(ConfigurationError, match="at once"):
        machine.config()


def test_relative_wishes_are_meant_from_here(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(machine.home)
    config = machine.config(overrides=StoreOverrides(Path("g"), Path("r")))
    assert (config.graph_root, config.run_root) == (machine.home / "g", machine.home / "r")


def test_a_place_apart_for_images(machine: Machine) -> None:
    machine.storage_conf(machine.roots(imagestore="$HOME/images"))
    assert machine.config().image_root == machine.home / "images"
    wishes = StoreOverrides(image_root=machine.home / "mine")
    assert machine.config(overrides=wishes).image_root == machine.home / "mine"
    with pytest.raises(ConfigurationError, match="at once"):
        machine.config(overrides=StoreOverrides(image_root=machine.graph))


def test_additional_image_stores_of_files_and_options(machine: Machine) -> None:
    first, second = machine.home / "first", machine.home / "second"
    for directory in (first, second, machine.graph):
        directory.mkdir()
    text = f'[storage.options]\nadditionalimagestores = ["{first}", "{second}", "{machine.graph}", "{first}"]\n'
    machine.storage_conf(machine.roots() + text)
    assert machine.config().additional_roots == (first, second)
    options = (f"overlay.imagestore={second}", f"additionalimagestore={first}", f"vfs.imagestore={machine.etc}")
    assert machine.config(overrides=StoreOverrides(options=options)).additional_roots == (second, first)
    assert machine.config(overrides=StoreOverrides(graph_root=machine.home / "g")).additional_roots == ()


def test_a_transient_store(machine: Machine) -> None:
    assert not machine.config().is_transient
    machine.storage_conf(machine.roots() + "transient_store = true\n")
    assert machine.config().is_transient
    assert not machine.config(overrides=StoreOverrides(is_transient=False)).is_transient


def test_options_that_are_true_or_false(machine: Machine) -> None:
    machine.storage_conf(
        machine.roots()
        + "[storage.options]\ndisable-volatile = true\n[storage.options.overlay]\nskip_mount_home = 'T'\n"
    )
    config = machine.config()
    assert (config.disables_volatile, config.skips_mount_home, config.ignore_chown_errors) == (True, True, False)


def test_options_of_other_drivers_are_left_out(machine: Machine) -> None:
    assert machine.config({"STORAGE_OPTS": "vfs.sync=none,overlay2.sync=filesystem"}).options == {"sync": "filesystem"}


def test_unknown_keys_are_told_of_once_by_name_and_file(
    machine: Machine, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    text = """
[other]
a = 1
[storage]
graph_root = "/x"
[storage.options]
thinpool = {}
[storage.options.overlay]
mountopts = "nodev"
"""
    assert unknown_keys(tomllib.loads(text)) == ["other", "storage.graph_root", "storage.options.overlay.mountopts"]
    path = machine.storage_conf(text)
    for _ in range(2):
        assert machine.config().options == {}
    written = capsys.readouterr()
    said = written.out + written.err + caplog.text + str([vars(record) for record in caplog.records])
    assert str(path) in said
    assert "storage.options.overlay.mountopts" in said


def test_every_key_that_the_library_documents_is_known() -> None:
    text = """
[storage]
driver = ""
driver_priority = ["overlay"]
runroot = ""
graphroot = ""
imagestore = ""
rootless_storage_path = ""
transient_store = false
[storage.options]
additionalimagestores = []
additionallayerstores = []
pull_options = {enable_partial_images = "true", use_hard_links = "false", ostree_repos = "", convert_images = "false"}
root-auto-userns-user = "storage"
auto-userns-min-size = 1024
auto-userns-max-size = 65536
disable-volatile = true
[storage.options.overlay]
ignore_chown_errors = "false"
inodes = ""
mount_program = ""
mountopt = "nodev"
skip_mount_home = "false"
size = ""
force_mask = ""
use_composefs = "false"
sync = "none"
[storage.options.vfs]
ignore_chown_errors = "false"
[storage.options.btrfs]
min_space = ""
size = ""
[storage.options.zfs]
fsname = ""
mountopt = ""
size = ""
"""
    assert unknown_keys(tomllib.loads(text)) == []


def test_a_file_of_which_nobody_says_whether_it_is_there(machine: Machine) -> None:
    with pytest.raises(ConfigurationError, match=r"storage\.conf: File name too long"):
        machine.config({"XDG_CONFIG_HOME": f"/{'x' * 300}"})
