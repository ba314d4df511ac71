"""``asyncpull verify``: whether the policy accepts an image, requirement by requirement."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from asyncpull.cli import exit_codes
from asyncpull.cli.choosing import choose_all, first_of
from asyncpull.cli.complaint import single_line
from asyncpull.cli.opening import open_store, platform_options, registry_access, trust_options, wanted_platform
from asyncpull.cli.output import write_json, write_lines
from asyncpull.cli.running import run
from asyncpull.cli.settings import Session, Settings, global_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncpull.cli.choosing import Choice
    from asyncpull.spec.location import Location, StorageLocation
    from asyncpull.spec.platform import Platform
    from asyncpull.spec.reference import Reference
    from asyncpull.trust.gate import Gate
    from asyncpull.trust.judge import Finding, Verdict


@click.command("verify")
@click.argument("reference", metavar="REF")
@platform_options
@global_options
@click.pass_obj
def verify(session: Session, /, reference: str, **platform: str | None) -> int:
    """Say what each requirement of the policy comes to for an image, of any transport.

    No layer is asked for. The exit code is 65 if the policy refuses the image. Of an index, the instance for the
    platform is judged, as a pull does.
    """
    from asyncpull.spec.location import RegistryLocation, parse_location

    settings, wanted = session.settings, wanted_platform(**platform)
    location = parse_location(reference)
    choice = choose_all([location.text], settings)[0] if isinstance(location, RegistryLocation) else None

    async def work() -> int:
        from asyncpull.trust.gate import Gate

        verdict = await _verdict(location, choice, wanted, Gate(trust_options(settings)), settings)
        if settings.json:
            write_json(as_json(verdict))
        else:
            write_lines(as_lines(verdict))
        return exit_codes.DONE if verdict.is_accepted else exit_codes.REFUSED_CONTENT

    return run(settings, work)


async def _verdict(
    location: Location, choice: Choice | None, wanted: Platform | None, gate: Gate, settings: Settings
) -> Verdict:
    from asyncpull.registry.client import RegistryClient
    from asyncpull.resolve import resolve_manifest
    from asyncpull.source.opening import open_source
    from asyncpull.source.registry import RegistrySource
    from asyncpull.spec.location import DirectoryLocation, StorageLocation
    from asyncpull.spec.platform import host_platform
    from asyncpull.trust.scopes import of_reference, scopes_of
    from asyncpull.trust.signaturestore import DirectorySignatures, NoSignatures

    platform = wanted or host_platform()
    if isinstance(location, StorageLocation):
        return await _stored_verdict(location, gate, settings)
    async with AsyncExitStack() as opened:
        if choice is not None:
            client = await opened.enter_async_context(RegistryClient(registry_access(settings)))

            async def attempt(reference: Reference) -> Verdict:
                index, manifest = await resolve_manifest(RegistrySource(client, reference), reference, platform)
                where, is_instance = gate.registry_signatures(client, reference), index is not None
                judged = await gate.judge(of_reference(reference), manifest.raw, where, is_instance=is_instance)
                return judged.verdict

            return await first_of(choice, attempt)
        source = await opened.enter_async_context(open_source(location))
        index, manifest = await resolve_manifest(source, source.name, platform)
        where = DirectorySignatures(location.path) if isinstance(location, DirectoryLocation) else NoSignatures()
        judged = await gate.judge(scopes_of(location), manifest.raw, where, is_instance=index is not None)
        return judged.verdict


async def _stored_verdict(location: StorageLocation, gate: Gate, settings: Settings) -> Verdict:
    from asyncpull.trust.scopes import scopes_of
    from asyncpull.trust.signaturestore import StoredSignatures

    place = replace(
        settings,
        root=location.graph_root or settings.root,
        run_root=location.run_root or settings.run_root,
        storage_driver=location.driver or settings.storage_driver,
        storage_options=(*settings.storage_options, *location.options),
    )
    async with open_store(place) as store:
        record = await store.image(location.name)
        scopes = scopes_of(location, driver=store.config.driver, graph_root=str(store.config.graph_root))
        manifest = await store.big_data(record, "manifest")
        return (await gate.judge(scopes, manifest, StoredSignatures(store, record))).verdict


def as_json(verdict: Verdict) -> dict[str, object]:
    """The object that ``--json`` prints."""
    return {
        "image": verdict.image,
        "digest": str(verdict.digest),
        "accepted": verdict.is_accepted,
        "policy": verdict.origin,
        "scope": verdict.scope,
        "signatures": verdict.signatures,
        "requirements": [_finding_as_json(finding) for finding in verdict.findings],
    }


def _finding_as_json(finding: Finding) -> dict[str, object]:
    return {"type": finding.requirement.type, "met": finding.is_met, "reasons": list(finding.reasons)}


def as_lines(verdict: Verdict) -> Iterator[str]:
    """The same for people."""
    yield f"{single_line(verdict.image)}: {'accepted' if verdict.is_accepted else 'refused'}"
    yield f"  manifest: {verdict.digest}"
    yield f"  policy: {single_line(verdict.origin)}"
    yield f"  scope: {single_line(verdict.scope)}"
    yield f"  signatures looked at: {verdict.signatures}"
    for number, finding in enumerate(verdict.findings, 1):
        yield f"  {number}. {finding.requirement.type}: {'met' if finding.is_met else 'not met'}"
        for reason in finding.reasons:
            yield f"     {single_line(reason)}"
