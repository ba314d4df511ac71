"""``asyncpull explain``: what the configuration comes to for a reference, without asking a registry."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from asyncpull.cli import exit_codes
from asyncpull.cli.complaint import single_line
from asyncpull.cli.opening import platform_options, registry_access, trust_options, wanted_platform
from asyncpull.cli.output import write_json, write_lines
from asyncpull.cli.running import run
from asyncpull.cli.settings import Session, Settings, global_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncpull.registry.explanation import EndpointExplanation, Explanation, ReferenceExplanation
    from asyncpull.spec.platform import Platform

_POLICY = "{scope} of {policy} for {reference}: {requires}"


@click.command("explain")
@click.argument("reference", metavar="REF")
@platform_options
@global_options
@click.pass_obj
def explain(session: Session, /, reference: str, **platform: str | None) -> int:
    """Show what a reference means, where, how and as whom it would be fetched, and into which store.

    No registry is asked. Secrets are not shown, but programs that keep credentials are asked whether they have any.
    """
    settings = session.settings
    chosen = wanted_platform(platform)

    async def work() -> int:
        from asyncpull.proxies import Proxies
        from asyncpull.registry.config import load_registries
        from asyncpull.registry.credentials import load_keyring, user_id
        from asyncpull.registry.explanation import explain as explained
        from asyncpull.spec.platform import host_platform

        access = registry_access(settings)
        registries = await load_registries(access, os.environ, user_id(os.environ))
        keyring = load_keyring(os.environ, access.authfile, registries.credential_helpers)
        explanation = await explained(reference, registries, keyring, Proxies.from_environ(os.environ))
        store, policies = _store(settings), _policies(explanation, settings)
        if settings.json:
            write_json(as_json(explanation, chosen or host_platform()) | {"policy": policies, "store": store})
        else:
            write_lines(as_lines(explanation, chosen or host_platform()))
            write_lines([_line(0, "policy", each.get("problem") or _POLICY.format(**each)) for each in policies])
            problem = store.get("problem")
            write_lines([_line(0, "store", problem or "{driver} in {graph_root} ({reason})".format(**store))])
        return exit_codes.DONE

    return run(settings, work)


def _policies(explanation: Explanation, settings: Settings) -> list[dict[str, str]]:
    """Which rule of the policy counts for each reference; or what is wrong with the policy."""
    from asyncpull.errors import ConfigurationError
    from asyncpull.trust.policyfile import load_policy
    from asyncpull.trust.scopes import of_reference

    found: list[dict[str, str]] = []
    try:
        policy = load_policy(trust_options(settings), os.environ)
    except ConfigurationError as error:
        return [{"problem": str(error)}]
    if policy is None:
        return [{"problem": "there is none, so every image is accepted"}]
    for explained in explanation.references:
        rule = policy.rule_for(of_reference(explained.reference))
        types = ", ".join(requirement.type for requirement in rule.requirements)
        found.append(
            {"reference": str(explained.reference), "policy": policy.origin, "scope": rule.scope, "requires": types}
        )
    return found


def _store(settings: Settings) -> dict[str, str]:
    """Where the image would go, and why with that driver; or what is wrong with the configuration of the store."""
    from asyncpull.cli.opening import store_config
    from asyncpull.errors import ConfigurationError

    try:
        config = store_config(settings)
    except ConfigurationError as error:
        return {"problem": str(error)}
    return {"graph_root": str(config.graph_root), "driver": config.driver, "reason": config.reason}


def as_json(explanation: Explanation, platform: Platform) -> dict[str, object]:
    """The object that ``--json`` prints."""
    candidates, registries = explanation.candidates, explanation.registries
    return {
        "text": explanation.text,
        "reason": candidates.reason,
        "needs_choice": candidates.needs_choice,
        "is_enforced": candidates.is_enforced,
        "candidates": [_reference_as_json(each) for each in explanation.references],
        "platform": str(platform),
        "short_name_mode": registries.short_name_mode.value,
        "credential_helpers": list(registries.credential_helpers),
        "files": [str(path) for path in explanation.files],
    }


def _reference_as_json(explained: ReferenceExplanation) -> dict[str, object]:
    reference = explained.reference
    return {
        "reference": str(reference),
        "registry": reference.domain,
        "repository": reference.path,
        "tag": reference.tag,
        "digest": None if reference.digest is None else str(reference.digest),
        "rule": explained.rule,
        "refused": explained.refused,
        "endpoints": [_endpoint_as_json(each) for each in explained.endpoints],
    }


def _endpoint_as_json(explained: EndpointExplanation) -> dict[str, object]:
    endpoint = explained.endpoint
    return {
        "urls": list(explained.urls),
        "host": endpoint.host,
        "repository": endpoint.repository,
        "mirror": endpoint.is_mirror,
        "resolves_tags": endpoint.resolves_tags,
        "serves_blobs": endpoint.serves_blobs,
        "insecure": endpoint.insecure,
        "authorities": [str(path) for path in endpoint.tls.authorities],
        "clients": [[str(path) for path in pair] for pair in endpoint.tls.clients],
        "namespace": endpoint.namespace,
        "headers": [name for name, _value in endpoint.headers],
        "proxy": explained.proxy,
        "account": endpoint.account,
        "credentials": explained.credentials,
        "username": explained.username,
        "problems": list(explained.problems),
    }


def as_lines(explanation: Explanation, platform: Platform) -> Iterator[str]:
    """The same for people."""
    yield _line(0, explanation.text, explanation.candidates.reason)
    if explanation.candidates.needs_choice:
        mode = explanation.registries.short_name_mode.value
        otherwise = "refused" if explanation.candidates.is_enforced else "all are tried, in order"
        yield _line(0, f"short-name-mode {mode}", f"on a terminal you choose, elsewhere {otherwise}")
    for explained in explanation.references:
        yield str(explained.reference)
        yield _line(2, "rule", explained.rule)
        if explained.refused is not None:
            yield _line(2, "refused", explained.refused)
        for number, endpoint in enumerate(explained.endpoints, 1):
            yield f"  {number}. {'mirror' if endpoint.endpoint.is_mirror else 'registry'} {endpoint.endpoint.name}"
            for label, text in _endpoint_fields(endpoint):
                yield _line(5, label, text)
    yield _line(0, "platform", str(platform))
    for path in explanation.files:
        yield _line(0, "read", str(path))


def _line(indentation: int, label: str, text: str) -> str:
    return f"{' ' * indentation}{single_line(label)}: {single_line(text)}"


def _endpoint_fields(explained: EndpointExplanation) -> Iterator[tuple[str, str]]:
    endpoint = explained.endpoint
    for url in explained.urls:
        yield "url", url
    if not (endpoint.resolves_tags and endpoint.serves_blobs):
        yield "asked for", "tags only" if endpoint.resolves_tags else "digests only"
    if endpoint.insecure:
        fallback = ", and http is spoken where https is not" if len(endpoint.schemes) > 1 else ""
        yield "insecure", f"its certificate is not verified{fallback}"
    for path in endpoint.tls.authorities:
        yield "authority", str(path)
    for certificate, key in endpoint.tls.clients:
        yield "client", f"{certificate} with {key}"
    if endpoint.namespace is not None:
        yield "namespace", f"?ns={endpoint.namespace}"
    for name, _value in endpoint.headers:
        yield "header", name
    yield "proxy", explained.proxy or "none"
    whose = f" as {explained.username}" if explained.username else ""
    yield "credentials", (explained.credentials or "none") + whose
    for problem in explained.problems:
        yield "problem", problem
