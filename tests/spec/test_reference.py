"""The grammar of distribution/reference, by its own cases and by the cases that people type."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.errors import InvalidReferenceError
from asyncpull.spec.digest import Digest
from asyncpull.spec.reference import parse_reference

HEX = "0123456789abcdef" * 4
SHA = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("docker://alpine", "docker.io/library/alpine:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/library/alpine", "docker.io/library/alpine:latest"),
        ("library/alpine", "docker.io/library/alpine:latest"),
        ("user/app", "docker.io/user/app:latest"),
        ("user/app/part", "docker.io/user/app/part:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("LOCAL/app", "LOCAL/app:latest"),
        ("Example.COM/app:V1", "Example.COM/app:V1"),
        ("quay.io/a/b:t", "quay.io/a/b:t"),
        ("registry:5000/app", "registry:5000/app:latest"),
        ("127.0.0.1:5000/app:1", "127.0.0.1:5000/app:1"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("[2001:db8::1]/a/b:x", "[2001:db8::1]/a/b:x"),
        ("a__b/c-d.e---f", "docker.io/a__b/c-d.e---f:latest"),
        (f"alpine@{SHA}", f"docker.io/library/alpine@{SHA}"),
        (f"alpine:3@{SHA}", f"docker.io/library/alpine:3@{SHA}"),
        (f"q.io:1/a:3@{SHA}", f"q.io:1/a:3@{SHA}"),
        ("app:" + "t" * 128, "docker.io/library/app:" + "t" * 128),
        ("q.io/" + "a/" * 127 + "a", "q.io/" + "a/" * 127 + "a:latest"),
        (HEX[:-1], f"docker.io/library/{HEX[:-1]}:latest"),
        (f"q.io/{HEX}", f"q.io/{HEX}:latest"),
    ],
)
def test_normalises(text: str, canonical: str) -> None:
    assert str(parse_reference(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "docker://",
        ":tag",
        "/app",
        "app/",
        "a//b",
        "Alpine",
        "user/App",
        "q.io/App",
        "app:",
        "app:ä",
        "app:-x",
        "app:" + "t" * 129,
        "app@",
        "app@sha256:12",
        f"app@md5:{HEX[:32]}",
        f"app@sha256:{HEX.upper()}",
        f"app@{SHA}@{SHA}",
        HEX,
        "a___b",
        "a..b",
        "-a",
        "a-",
        "_a",
        "q.io:port/app",
        "-q.io/app",
        "[::1/app",
        "[fe80::1%eth0]/app",
        "[::ffff:1.2.3.4]/app",
        "q.io/" + "a/" * 128 + "a",
        "app tag",
        "app\n",
        "app:tag\n",
        "https://q.io/app",
        "٣/app",
        "app:٣",
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        parse_reference(text)


def test_upper_case_repository_gets_a_hint() -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        parse_reference("quay.io/Team/App")
    assert caught.value.hint == "try 'team/app'"


@pytest.mark.parametrize(
    ("text", "stored", "familiar"),
    [
        ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("docker.io/user/app:1", "docker.io/user/app:1", "user/app:1"),
        ("docker.io/library/a/b:1", "docker.io/library/a/b:1", "library/a/b:1"),
        (f"alpine:3@{SHA}", f"docker.io/library/alpine@{SHA}", f"alpine:3@{SHA}"),
        ("q.io/a", "q.io/a:latest", "q.io/a:latest"),
        ("docker.io/localhost/a", "docker.io/localhost/a:latest", "docker.io/localhost/a:latest"),
        ("docker.io/docker.io/a", "docker.io/docker.io/a:latest", "docker.io/docker.io/a:latest"),
        ("docker.io/q.io/a", "docker.io/q.io/a:latest", "docker.io/q.io/a:latest"),
    ],
)
def test_names_for_the_store_and_for_people(text: str, stored: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert reference.store_name == stored
    assert reference.familiar == familiar


def test_other_tag_and_digest_of_the_same_repository() -> None:
    reference = parse_reference(f"q.io/a:1@{SHA}")
    assert str(reference.with_tag("2")) == "q.io/a:2"
    assert str(reference.with_digest(Digest.parse(SHA))) == f"q.io/a@{SHA}"
    with pytest.raises(InvalidReferenceError):
        reference.with_tag("no tag")


@given(st.text(max_size=80))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidReferenceError:
        return
    assert parse_reference(str(reference)) == reference
    assert parse_reference(reference.familiar) == reference
