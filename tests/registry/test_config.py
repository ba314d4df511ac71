"""Which endpoint a reference means."""

from __future__ import annotations

import pytest

from asyncpull.registry.config import Endpoint, RegistryAccess
from asyncpull.spec.reference import parse_reference

INSECURE = frozenset({"localhost:5000"})


@pytest.mark.parametrize(
    ("reference", "tls_verify", "expected"),
    [
        ("alpine", None, Endpoint("registry-1.docker.io")),
        ("quay.io/a/b", None, Endpoint("quay.io")),
        ("localhost:5000/a", None, Endpoint("localhost:5000", insecure=True)),
        ("localhost:5001/a", None, Endpoint("localhost:5001")),
        ("[::1]:5000/a", False, Endpoint("[::1]:5000", insecure=True)),
        ("localhost:5000/a", True, Endpoint("localhost:5000")),
        ("alpine", False, Endpoint("registry-1.docker.io", insecure=True)),
    ],
)
def test_endpoints(reference: str, tls_verify: bool | None, expected: Endpoint) -> None:
    access = RegistryAccess(tls_verify=tls_verify, insecure=INSECURE)
    endpoint = access.endpoint(parse_reference(reference))
    assert endpoint == expected
    assert endpoint.schemes == (("https", "http") if expected.insecure else ("https",))
