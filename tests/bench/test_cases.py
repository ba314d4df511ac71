"""The command line says what is measured, and what it leaves out is that of the options."""

from __future__ import annotations

import pytest

from bench.cases import SWEEPS, Case, cases_of, cases_of_sweep, limits_of, merged, variant
from bench.links import LINKS
from bench.scenarios import SCENARIOS


@pytest.mark.parametrize(
    ("text", "cases"),
    [
        ("tiny@30M", [Case("tiny", "30M", ("podman", "ctr"))]),
        ("tiny", [Case("tiny", "8M", ("podman", "ctr")), Case("tiny", "loopback", ("podman", "ctr"))]),
        ("tiny@8M:podman", [Case("tiny", "8M", ("podman",))]),
        ("tiny@30M:ctr-tuned,ctr", [Case("tiny", "30M", ("ctr-tuned", "ctr"))]),
    ],
)
def test_what_a_scenario_does_not_name_is_that_of_the_options(text: str, cases: list[Case]) -> None:
    assert list(cases_of(text, ["8M", "loopback"], ["podman", "ctr"])) == cases


@pytest.mark.parametrize("text", ["huge", "tiny@9M", "@8M", "tiny:rkt"])
def test_what_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(SystemExit, match="scenarios are fat-layers"):
        list(cases_of(text, ["8M"], []))


def test_a_case_that_is_named_twice_is_measured_once() -> None:
    cases = [Case("tiny", "8M", ("podman",)), Case("tiny", "30M", ()), Case("tiny", "8M", ("ctr", "podman"))]

    assert merged(cases) == [Case("tiny", "8M", ("podman", "ctr")), Case("tiny", "30M", ())]


def test_variants_carry_their_limits() -> None:
    assert limits_of(variant("workers", 3)) == ("--workers", "3")
    assert limits_of("asyncpull") == limits_of("podman") == ()


@pytest.mark.parametrize("name", SWEEPS)
def test_series_are_made_of_what_there_is(name: str) -> None:
    for case in cases_of_sweep(SWEEPS[name]):
        assert case.scenario in SCENARIOS
        assert case.link in LINKS


def test_what_is_present_is_pulled_again_only_if_there_is_nothing_else() -> None:
    images = ["base", "application"]

    assert images[SCENARIOS["layers-present"].pulled] == ["application"]
    assert ["image"][SCENARIOS["image-present"].pulled] == ["image"]
    assert images[SCENARIOS["tiny"].pulled] == images
