"""What the global options say, whether they stood before the verb or after it."""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING, TypeVar

import click

from asyncpull.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Decorated = TypeVar("Decorated", bound=Callable[..., object])

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
OPTIONAL_BOOLEANS = ("--tls-verify", "--src-tls-verify", "--dest-tls-verify", "--transient-store")


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of the global options; None where the configuration files decide."""

    root: str | None = None
    run_root: str | None = None
    storage_driver: str | None = None
    storage_options: tuple[str, ...] = ()
    image_store: str | None = None
    transient_store: bool | None = None
    auth_file: str | None = None
    cert_dir: str | None = None
    registries_conf: str | None = None
    registries_conf_dir: str | None = None
    hosts_dir: str | None = None
    policy: str | None = None
    insecure_policy: bool = False
    registries_d: str | None = None
    tls_verify: bool | None = None
    log_level: str = "warning"
    log_format: str = "console"
    progress: str = "auto"
    json: bool = False
    quiet: bool = False


@dataclass(slots=True)
class Session:
    """One run of the command: its settings grow while the options are parsed."""

    settings: Settings = field(default_factory=Settings)

    def set(self, name: str, value: object) -> None:
        """Take one option; one that may be repeated adds to what is there, wherever it stood."""
        if name == "storage_options" and isinstance(value, tuple):
            value = (*self.settings.storage_options, *value)
        self.settings = replace(self.settings, **{name: value})  # type: ignore[arg-type]  # click converted it


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """Keep the value of an option that was given; a default must not overwrite what stood before the verb."""
    name = parameter.name or ""
    if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
        context.find_object(Session).set(name, value)  # type: ignore[union-attr]  # main() passes one


def _global(*declarations: str, **attributes: object) -> Callable[[Decorated], Decorated]:
    return click.option(*declarations, expose_value=False, callback=_remember, **attributes)  # type: ignore[arg-type]


_DIRECTORY = click.Path(file_okay=False)
_FILE = click.Path(dir_okay=False)

_GLOBAL_OPTIONS = (
    _global("--root", metavar="DIR", type=_DIRECTORY, help="Graph root: where images and layers are."),
    _global("--runroot", "run_root", metavar="DIR", type=_DIRECTORY, help="Run root: what does not survive a reboot."),
    _global("--storage-driver", metavar="NAME", help="Storage driver (overlay)."),
    _global("--storage-opt", "storage_options", metavar="K=V", multiple=True, help="Option of the driver; repeatable."),
    _global("--imagestore", "image_store", metavar="DIR", type=_DIRECTORY, help="Keep images and their layers there."),
    _global(
        "--transient-store",
        metavar="[=true|false]",
        type=click.BOOL,
        help="Whether records of containers are kept in the run root, which a reboot loses.",
    ),
    _global("--authfile", "auth_file", metavar="FILE", type=_FILE, help="Credentials, as podman login writes them."),
    _global("--cert-dir", metavar="DIR", type=_DIRECTORY, help="*.crt, *.cert and *.key files for the registry."),
    _global("--registries-conf", metavar="FILE", type=_FILE, help="Instead of the usual registries.conf."),
    _global("--registries-conf-dir", metavar="DIR", type=_DIRECTORY, help="Instead of the usual registries.conf.d."),
    _global("--hosts-dir", metavar="DIR", type=_DIRECTORY, help="Mirrors as containerd's hosts.toml files name them."),
    _global("--policy", metavar="FILE", type=_FILE, help="Instead of the usual policy.json."),
    _global("--insecure-policy", is_flag=True, help="Accept every image, whatever any policy says."),
    _global(
        "--registries.d",
        "registries_d",
        metavar="DIR",
        type=_DIRECTORY,
        help="Instead of the usual registries.d, which says where signatures are.",
    ),
    _global(
        "--tls-verify",
        metavar="[=true|false]",
        type=click.BOOL,
        help="Whether registries must have valid certificates; false also allows plain http.",
    ),
    _global("--log-level", type=click.Choice(LOG_LEVELS, case_sensitive=False), help="What is logged to stderr."),
    _global("--log-format", type=click.Choice(["console", "json"]), help="How it is logged."),
    _global(
        "--progress",
        type=click.Choice(["auto", "bar", "plain", "json", "none"]),
        help="How progress is shown on stderr; auto is bars on a terminal, plain lines elsewhere.",
    ),
    _global("--json", is_flag=True, help="The result as JSON."),
    _global("-q", "--quiet", is_flag=True, help="No progress; listings print IDs only."),
)


def global_options(command: Decorated) -> Decorated:
    """Give a command all global options."""
    for option in reversed(_GLOBAL_OPTIONS):
        command = option(command)
    return command


def spell_out_booleans(arguments: Sequence[str]) -> list[str]:
    """Write ``--tls-verify`` as ``--tls-verify=true``, up to ``--``.

    Such an option takes a value only by ``=``, as podman's do; click would take the reference behind it.
    """
    spelled = list(arguments)
    end = spelled.index("--") if "--" in spelled else len(spelled)
    for position in range(end):
        if spelled[position] in OPTIONAL_BOOLEANS:
            spelled[position] += "=true"
    return spelled
