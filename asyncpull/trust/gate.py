"""What lets images through, or not: the policy of this machine and the signatures that it wants to see.

Signatures are asked for only where the rule for an image needs them. What was judged are bytes; whoever is let through
goes on with the very same.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError, SourceError, StoreError
from asyncpull.log import Log
from asyncpull.registry.credentials import user_id
from asyncpull.spec.schema1 import document_digest
from asyncpull.trust.judge import Verdict, judge
from asyncpull.trust.policy import accept_anything
from asyncpull.trust.policyfile import TrustOptions, load_policy
from asyncpull.trust.registriesd import load_registries_directory
from asyncpull.trust.signaturestore import RegistrySignatures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncpull.registry.client import RegistryClient
    from asyncpull.spec.reference import Reference
    from asyncpull.spec.signature import Signature
    from asyncpull.trust.policy import Policy, Rule
    from asyncpull.trust.registriesd import RegistriesDirectory
    from asyncpull.trust.scopes import ImageScopes
    from asyncpull.trust.signaturestore import Signatures

_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, and the signatures that it was made by; empty where the rule wants none."""

    verdict: Verdict
    signatures: tuple[Signature, ...]


class Gate:
    """Judges images by one policy, which is read when the first image comes. Belongs to one event loop."""

    def __init__(self, options: TrustOptions | None = None, *, environ: Mapping[str, str] | None = None) -> None:
        self._options = options or TrustOptions()
        self._environ = os.environ if environ is None else environ
        self._policy: Policy | None = None
        self._directory: RegistriesDirectory | None = None
        self._loading = asyncio.Lock()

    async def policy(self) -> Policy:
        """The policy, read once. Raises ConfigurationError."""
        async with self._loading:
            if self._policy is None:
                self._policy = await asyncio.to_thread(load_policy, self._options, self._environ)
            if self._policy is None:
                _log.warning("there is no policy.json on this machine, so every image is accepted")
                self._policy = accept_anything("no policy.json")
        return self._policy

    async def directory(self) -> RegistriesDirectory:
        """What ``registries.d`` says, read once. Raises ConfigurationError."""
        async with self._loading:
            if self._directory is None:
                self._directory = await asyncio.to_thread(
                    load_registries_directory, self._options, self._environ, user_id(self._environ)
                )
        return self._directory

    async def rule(self, image: ImageScopes) -> Rule:
        """The rule that counts for ``image``. Raises ConfigurationError."""
        return (await self.policy()).rule_for(image)

    async def judge(
        self,
        image: ImageScopes,
        manifest: bytes,
        signatures: Signatures,
        *,
        is_instance: bool = False,
        wants_signatures: bool = False,
    ) -> Judged:
        """Judge ``manifest``, the exact bytes; ``is_instance`` tells that an index was named, which lists it.

        ``wants_signatures`` asks for signatures also where the rule needs none.

        Raises ConfigurationError, and what asking for signatures raises.
        """
        policy = await self.policy()
        rule = policy.rule_for(image)
        if not rule.wants_signatures and not wants_signatures:
            return Judged(judge(policy.origin, rule, image, manifest, ()), ())
        found = await signatures.of(document_digest(manifest), is_instance=is_instance)
        return Judged(await asyncio.to_thread(judge, policy.origin, rule, image, manifest, found), found)

    async def admit(
        self, image: ImageScopes, manifest: bytes, signatures: Signatures, *, is_instance: bool = False
    ) -> tuple[Signature, ...]:
        """Raise PolicyError unless the policy accepts ``manifest``, an image of a registry; gives its signatures.

        Where the rule needs none, they are those of the places that ``registries.d`` names, as far as they can be had:
        whoever stores the image has them then, as podman does. Raises what ``judge`` raises, too.
        """
        judged = await self.judge(image, manifest, signatures, is_instance=is_instance)
        judged.verdict.require()
        if (await self.rule(image)).wants_signatures or not (await self.directory()).has_signatures(image):
            return judged.signatures
        try:
            return await signatures.of(document_digest(manifest), is_instance=is_instance)
        except (SourceError, DocumentError, StoreError) as error:
            _log.warning("signatures that nobody asks for cannot be had", image=image.name, reason=str(error))
            return ()

    def registry_signatures(self, client: RegistryClient, reference: Reference) -> RegistrySignatures:
        """Where the signatures of ``reference`` are, whom ``client`` asks."""
        return RegistrySignatures(client, reference, self.directory, self._environ)
