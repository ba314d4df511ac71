"""Sources from locations."""

from __future__ import annotations

from asyncpull.registry.client import RegistryClient
from asyncpull.source.opening import open_source
from asyncpull.spec.location import RegistryLocation, parse_location


async def test_a_registry_is_asked_through_the_client_that_is_given() -> None:
    async with RegistryClient() as client, open_source(RegistryLocation("alpine"), client=client) as source:
        assert source.name == "docker.io/library/alpine:latest"


async def test_without_a_client_there_is_one_for_the_body() -> None:
    async with open_source(parse_location("docker://registry.example.com/a@sha256:" + "0" * 64)) as source:
        assert source.registry == "registry.example.com"
