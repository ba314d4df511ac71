"""The command as a whole: its verbs, and what becomes of errors.

Verbs are imported when they are named, so that ``asyncpull --version`` and each verb pay only for themselves.
"""

from __future__ import annotations

import errno
import importlib
import sys
from typing import TYPE_CHECKING

import click

from asyncpull import __version__
from asyncpull.cli import exit_codes
from asyncpull.cli.complaint import complain
from asyncpull.cli.settings import Session, global_options, spell_out_booleans
from asyncpull.cli.streams import abandon_stdout, occupy_streams
from asyncpull.errors import AsyncpullError

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNWRITABLE = (errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC)

# verb: (module below asyncpull.cli.verbs, one line of help)
_VERBS = {
    "pull": ("pull", "Fetch, verify, extract and commit images."),
    "plan": ("plan", "Show what a pull would do and cost, without fetching a layer."),
    "prefetch": ("prefetch", "Pull many images by one scheduler, and keep going on errors."),
    "copy": ("copy", "Copy an image between any two places."),
    "sync": ("sync", "Copy many images between registries and directories."),
    "info": ("info", "Show the state of the store."),
    "images": ("listing", "List images."),
    "layers": ("listing", "List layers."),
    "containers": ("listing", "List containers."),
    "inspect": ("inspect", "Summarise an image, or show its exact documents."),
    "digest": ("inspect", "Print the digest that a reference has now."),
    "manifest-digest": ("inspect", "Print the digest of a manifest in a file."),
    "tags": ("tags", "List the tags of a repository."),
    "verify": ("verify", "Say whether the policy accepts an image, and why not."),
    "delete": ("delete", "Delete an image on a registry, in an image layout or in a store."),
    "explain": ("explain", "Show where, how and as whom a reference would be fetched."),
    "login": ("login", "Log in to a registry."),
    "logout": ("login", "Forget a login."),
    "create": ("containers", "Create a container: a writable layer on an image."),
    "mount": ("mounts", "Mount a container, or an image read-only; list what is mounted."),
    "unmount": ("mounts", "Count a mount down, and unmount at zero."),
    "rm": ("containers", "Remove containers."),
    "rmi": ("names", "Remove images, or one of their names."),
    "tag": ("names", "Give an image one more name."),
    "untag": ("names", "Take names from an image."),
    "check": ("upkeep", "Verify the store against its records and digests, and repair it."),
    "gc": ("upkeep", "Remove what nobody needs."),
    "diff": ("export", "List what a container, image or layer changed, or how two of them differ."),
    "changes": ("export", "List all that a container or layer changes in the layer below it."),
    "commit": ("commit", "Make an image of a container."),
    "export": ("export", "Write the exact tar of a layer, or of what a container changed."),
    "unshare": ("unshare", "Run a command in the user namespace of a rootless store."),
    "demo": ("demo", "Pull, mount and list an image in a store of its own."),
}


class _Verbs(click.Group):
    """A group that knows its verbs by name and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module = importlib.import_module(f"asyncpull.cli.verbs.{_VERBS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, text) for verb, (_module, text) in _VERBS.items()])


@click.group(
    cls=_Verbs,
    subcommand_metavar="VERB …",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@global_options
def _command() -> None:
    """Pull container images into a containers/storage store, and work with what is there.

    REF without a transport means docker://. Global options are accepted before and after the verb.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code. Everything that goes wrong becomes one or two lines on stderr."""
    occupy_streams()
    session = Session()
    try:
        code = _command.main(
            spell_out_booleans(sys.argv[1:] if arguments is None else arguments),
            prog_name="asyncpull",
            standalone_mode=False,
            obj=session,
        )
        sys.stdout.flush()
        return code if isinstance(code, int) else exit_codes.DONE
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return exit_codes.USAGE
    except click.ClickException as error:
        complain(error.format_message(), _usage_hint(error))
        return exit_codes.USAGE
    except (KeyboardInterrupt, click.Abort):
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        abandon_stdout()  # nobody reads the result any more
        return exit_codes.FAILED
    except OSError as error:
        if error.filename is not None or error.errno not in _UNWRITABLE:
            return _failure(error, session)
        from asyncpull.scratch import write_error  # seldom needed

        abandon_stdout()  # help and version are written by click
        return _failure(write_error(error, "stdout"), session)
    except Exception as error:
        return _failure(error, session)


def _failure(error: Exception, session: Session) -> int:
    if session.settings.log_level == "debug":
        sys.excepthook(type(error), error, error.__traceback__)
    if isinstance(error, AsyncpullError):
        complain(str(error), error.hint)
    else:
        complain(f"internal error: {type(error).__name__}: {error}", "--log-level debug shows where")
    return exit_codes.exit_code_of(error)


def _usage_hint(error: click.ClickException) -> str | None:
    context = getattr(error, "ctx", None)
    return f"{context.command_path} --help shows what it takes" if context else None
