"""Where the policy of a machine is: the file that counts, read once.

The first that exists counts: what the caller names, the user's, the system's, what the distribution left.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import ConfigurationError
from asyncpull.registry.config import configuration_homes
from asyncpull.trust.policy import Policy, accept_anything

if TYPE_CHECKING:
    from collections.abc import Mapping

_SYSTEM = Path("/etc/containers/policy.json")
_VENDOR = Path("/usr/share/containers/policy.json")
_FILE_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class TrustOptions:
    """What the caller says about trust; the paths are what is read instead of the usual places.

    ``policy`` is a ``policy.json``; ``accepts_anything`` puts one in its place that refuses nothing. ``registries_dir``
    is a ``registries.d``, which says where signatures are.
    """

    policy: Path | None = None
    accepts_anything: bool = False
    registries_dir: Path | None = None


def load_policy(options: TrustOptions, environ: Mapping[str, str]) -> Policy | None:
    """The policy that counts, None where there is no file at all.

    Raises ConfigurationError for one that cannot be read or understood.
    """
    if options.accepts_anything:
        return accept_anything("--insecure-policy")
    if options.policy is not None:
        policy = _read(options.policy)
        if policy is None:
            raise ConfigurationError(f"{options.policy}: there is no such policy")
        return policy
    homes = (home / "policy.json" for home in configuration_homes(environ))
    return next((policy for path in (*homes, _SYSTEM, _VENDOR) if (policy := _read(path)) is not None), None)


def _read(path: Path) -> Policy | None:
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > _FILE_LIMIT:
        raise ConfigurationError(f"{path}: larger than {_FILE_LIMIT} bytes, which no policy is")
    return Policy.from_bytes(path, raw)
