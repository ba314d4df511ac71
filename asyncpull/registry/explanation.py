"""What all of the configuration comes to for one reference: values to be shown, and never a secret among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import AsyncpullError, ConfigurationError, PolicyError
from asyncpull.proxies import without_secret
from asyncpull.registry.credentials import AUTH_FILES

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.proxies import Proxies
    from asyncpull.registry.config import Registries
    from asyncpull.registry.credentials import Keyring
    from asyncpull.registry.endpoint import Endpoint
    from asyncpull.registry.shortnames import Candidates
    from asyncpull.spec.reference import Reference


@dataclass(frozen=True, slots=True)
class EndpointExplanation:
    """One endpoint, and what is known before it is asked.

    ``urls`` are those of the repository, in the order to be tried. ``proxy`` is without its password, None for a
    direct connection; ``credentials`` says where they come from and ``username`` whose they are, None for nobody's.
    ``problems`` is what will go wrong.
    """

    endpoint: Endpoint
    urls: tuple[str, ...]
    proxy: str | None
    credentials: str | None
    username: str | None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReferenceExplanation:
    """One reference that the text may mean; ``rule`` is what decides its endpoints, ``refused`` why it has none."""

    reference: Reference
    rule: str
    endpoints: tuple[EndpointExplanation, ...] = ()
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A text, what it may mean, and where that would be fetched from; ``files`` are those that were read for it."""

    text: str
    candidates: Candidates
    references: tuple[ReferenceExplanation, ...]
    registries: Registries
    files: tuple[Path, ...]


async def explain(text: str, registries: Registries, keyring: Keyring, proxies: Proxies) -> Explanation:
    """Explain ``text``, a reference or a short name, without asking a registry. Raises InvalidReferenceError."""
    found = registries.candidates(text)
    references = [await _explain_reference(each, registries, keyring, proxies) for each in found.references]
    auth_files = (place.path for place in keyring.paths if AUTH_FILES in registries.credential_helpers)
    files = (*registries.files, *(path for path in auth_files if path.is_file()))
    return Explanation(text, found, tuple(references), registries, files)


async def _explain_reference(
    reference: Reference, registries: Registries, keyring: Keyring, proxies: Proxies
) -> ReferenceExplanation:
    rule = "none"
    try:
        rule = registries.rule_of(reference)
        endpoints = registries.endpoints(reference)
    except (PolicyError, ConfigurationError) as error:
        return ReferenceExplanation(reference, rule, refused=str(error))
    explained = [await _explain_endpoint(endpoint, keyring, proxies) for endpoint in endpoints]
    return ReferenceExplanation(reference, rule, tuple(explained))


async def _explain_endpoint(endpoint: Endpoint, keyring: Keyring, proxies: Proxies) -> EndpointExplanation:
    urls = tuple(f"{scheme}://{endpoint.host}{endpoint.prefix}/{endpoint.repository}" for scheme in endpoint.schemes)
    problems: list[str] = []
    proxy = credentials = username = None
    try:
        proxy = proxies.for_url(urls[0])
    except ConfigurationError as error:
        problems.append(str(error))
    try:
        found = await keyring.lookup(endpoint.account)
        if found is not None:
            credentials, username = found.source, found.credentials.username or None
    except AsyncpullError as error:
        problems.append(str(error))
    shown = None if proxy is None else without_secret(proxy)
    return EndpointExplanation(endpoint, urls, shown, credentials, username, tuple(problems))
