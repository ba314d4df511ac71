"""What a location is called in a policy: its scopes, the most specific first (containers-policy.json(5)).

A registry's image is found by its full name with the tag or the digest, then by its repository, what that is below, the
registry with its port, and ``*.domain`` for each domain that the registry is in. What is a file or a directory goes by
its absolute path without links, then by the directories it is in. A store goes before the name, ``[DRIVER@ROOT]``, and
the ID of the image behind it, whether or not the location says one.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import InvalidReferenceError
from asyncpull.spec.reference import parse_reference

if TYPE_CHECKING:
    from asyncpull.spec.location import Location, StorageLocation
    from asyncpull.spec.reference import Reference

_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ImageScopes:
    """An image as a policy sees it: ``scopes`` are tried in order, and then the empty one of its ``transport``.

    ``intended`` is the name that a signature should be for; None where the transport gives no such name.
    """

    name: str
    transport: str
    scopes: tuple[str, ...] = ()
    intended: Reference | None = None


def scopes_of(location: Location, *, driver: str = "", graph_root: str = "", image_id: str = "") -> ImageScopes:
    """The scopes of ``location``.

    ``driver`` and ``graph_root`` are those of the store where it does not say them, and ``image_id`` is the image that
    it has found there.

    Looks at the file system for links. Raises InvalidReferenceError.
    """
    from asyncpull.spec.location import (  # a pull knows its image by a reference
        DaemonLocation,
        DirectoryLocation,
        DockerArchiveLocation,
        LayoutArchiveLocation,
        LayoutLocation,
        RegistryLocation,
        SifLocation,
        StorageLocation,
    )

    name, transport = str(location), location.transport
    match location:
        case RegistryLocation():
            return of_reference(location.reference)
        case DaemonLocation(reference) if reference is not None:
            intended = _without_second(reference)
            return ImageScopes(name, transport, _of_name(intended), intended)
        case DockerArchiveLocation(reference=reference):
            return ImageScopes(name, transport, (), reference)
        case LayoutLocation(path) | LayoutArchiveLocation(path) | DirectoryLocation(path) | SifLocation(path):
            return ImageScopes(name, transport, _of_path(os.path.realpath(path)))
        case StorageLocation():
            return _of_storage(location, location.driver or driver, location.graph_root or graph_root, image_id)
        case _:
            return ImageScopes(name, transport)


def of_reference(reference: Reference) -> ImageScopes:
    """The scopes of an image of a registry. Where there is a tag and a digest, the digest says what is meant."""
    intended = _without_second(reference)
    return ImageScopes(f"docker://{reference}", "docker", _of_name(intended), intended)


def _without_second(reference: Reference) -> Reference:
    return reference if reference.digest is None else reference.with_digest(reference.digest)


def _of_name(reference: Reference) -> tuple[str, ...]:
    scopes, name = [str(reference)], reference.name
    while name:
        scopes.append(name)
        name = name.rpartition("/")[0]
    domain = reference.domain.partition(":")[0]
    while "." in domain:
        domain = domain.partition(".")[2]
        scopes.append(f"*.{domain}")
    return tuple(scopes)


def _of_path(path: str) -> tuple[str, ...]:
    scopes = []
    while path not in ("/", ""):
        scopes.append(path)
        path = path.rpartition("/")[0]
    return tuple(scopes)


def _of_storage(location: StorageLocation, driver: str, graph_root: str, found: str) -> ImageScopes:
    whole, root = f"[{driver}@{graph_root}]", f"[{graph_root}]"
    is_short = bool(location.name) and found.startswith(location.name)  # an ID cut short, which looks like a name
    named, image_id = (None, found) if is_short else _name_and_id(location.name)
    image_id = image_id or found
    scopes = []
    if image_id:
        scopes.append(f"{whole}{named or ''}@{image_id}")
    if named is not None:
        scopes.append(f"{whole}{named}")
        if named.tag is not None and named.digest is not None:
            scopes.append(f"{whole}{named.name}:{named.tag}")
        name = named.name
        while name:
            scopes.append(f"{whole}{name}")
            name = name.rpartition("/")[0]
    return ImageScopes(str(location), location.transport, (*scopes, whole, root), named)


def _name_and_id(text: str) -> tuple[Reference | None, str]:
    """What a store's image is called by: a name, an ID, or both with an ``@`` between them."""
    before, at, last = text.rpartition("@")
    if _ID.fullmatch(last):
        return (parse_reference(before) if at and before else None), last
    try:
        return parse_reference(text), ""
    except InvalidReferenceError:
        if re.fullmatch(r"[0-9a-f]+", text):  # an ID cut short, of which a policy can know nothing
            return None, ""
        raise
