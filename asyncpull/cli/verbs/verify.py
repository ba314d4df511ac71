"""``asyncpull verify``: whether the policy accepts an image, requirement by requirement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from asyncpull.cli import exit_codes
from asyncpull.cli.choosing import choose_all, first_of
from asyncpull.cli.complaint import single_line
from asyncpull.cli.opening import platform_options, retry_options, trust_options, wanted_platform
from asyncpull.cli.output import write_json, write_lines
from asyncpull.cli.running import run
from asyncpull.cli.settings import Session, global_options
from asyncpull.cli.sides import ONLY, side_access, side_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncpull.access import Access
    from asyncpull.cli.choosing import Choice
    from asyncpull.registry.client import RegistryClient
    from asyncpull.spec.location import Location
    from asyncpull.spec.platform import Platform
    from asyncpull.trust.gate import Gate
    from asyncpull.trust.judge import Finding, Verdict


@click.command("verify")
@click.argument("reference", metavar="REF")
@side_options(ONLY)
@retry_options
@platform_options
@global_options
@click.pass_obj
def verify(session: Session, /, reference: str, **values: object) -> int:
    """Say what each requirement of the policy comes to for an image, of any transport.

    No layer is asked for. The exit code is 65 if the policy refuses the image. Of an index, the instance for the
    platform is judged, as a pull does.
    """
    from asyncpull.spec.location import RegistryLocation, parse_location

    settings = session.settings
    wanted, access = wanted_platform(values), side_access(ONLY, values, settings)
    location = parse_location(reference)
    choice = choose_all([location.text], settings)[0] if isinstance(location, RegistryLocation) else None

    async def work() -> int:
        from asyncpull.trust.gate import Gate

        verdict = await _verdict(location, choice, wanted, Gate(trust_options(settings)), access)
        if settings.json:
            write_json(as_json(verdict))
        else:
            write_lines(as_lines(verdict))
        return exit_codes.DONE if verdict.is_accepted else exit_codes.REFUSED_CONTENT

    return run(settings, work)


async def _verdict(
    location: Location, choice: Choice | None, wanted: Platform | None, gate: Gate, access: Access
) -> Verdict:
    from asyncpull.registry.client import RegistryClient
    from asyncpull.spec.location import RegistryLocation
    from asyncpull.spec.platform import host_platform

    platform = wanted or host_platform()
    if choice is None:
        return await _judged(location, platform, gate, access, None)
    async with RegistryClient(access.registry, retry=access.retry) as client:
        return await first_of(
            choice,
            lambda reference: _judged(RegistryLocation(str(reference)), platform, gate, access, client),
        )


async def _judged(
    location: Location, platform: Platform, gate: Gate, access: Access, client: RegistryClient | None
) -> Verdict:
    """What comes of the manifest that a pull or a copy would take from ``location``."""
    from asyncpull.copying.notary import evidence
    from asyncpull.resolve import resolve_manifest
    from asyncpull.source.opening import open_source
    from asyncpull.spec.manifest import is_schema1

    async with open_source(location, access, client=client) as source:
        named = await source.manifest()
        raw, is_instance = named.raw, False
        if not is_schema1(named.raw, named.media_type):
            index, manifest = await resolve_manifest(source, source.name, platform, named)
            raw, is_instance = manifest.raw, index is not None
        image, signatures = evidence(gate, location, source, client)
        return (await gate.judge(image, raw, signatures, is_instance=is_instance)).verdict


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
