"""A whole comparison, with the smallest images: through nginx, with real pulls, down to the file of results."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.compare import Case, cases_of, main
from bench.images import build_workload
from bench.links import Traffic, summary
from bench.peers import Command
from bench.scenarios import SCENARIOS
from tests.support.docker_registry import is_installed as has_docker_registry
from tests.support.nginx import Answer
from tests.support.nginx import is_installed as has_nginx

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.mark.parametrize("text", ["huge", "tiny@9M", "@8M", "tiny:docker"])
def test_what_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(SystemExit, match="scenarios are fat-layers"):
        list(cases_of(text, ["8M"], []))


def test_all_references_at_once_or_one_after_another(tmp_path: Path) -> None:
    words = ("pull", "--root", "{store}/root", "--", "{reference}")
    single = Command("any", "1", ("enter",), words)
    several = replace(single, several=("prefetch", *words[1:]))

    with several.job(tmp_path, ["a", "b"]) as job:
        assert job.command == ["enter", "prefetch", "--root", f"{tmp_path}/root", "--", "a", "b"]
    for peer in (several, single):
        with peer.job(tmp_path, ["a"]) as job:
            assert job.command == ["enter", "pull", "--root", f"{tmp_path}/root", "--", "a"]
    with single.job(tmp_path, ["a", "b"]) as job:
        pulls = [f"pull --root {tmp_path}/root -- {reference}" for reference in ("a", "b")]
        assert job.command == ["enter", "sh", "-ec", "\n".join(pulls)]


def test_traffic_counts_blobs_only_and_what_overlaps() -> None:
    def answer(started: float, ended: float, body: int, path: str = "/v2/a/blobs/sha256:0") -> Answer:
        return Answer(1, ended, ended - started, 200, body + 200, body, "", f"GET {path} HTTP/1.1", "")

    answers = [
        answer(0, 9, 50, "/v2/a/manifests/b"),
        answer(1, 2, 0),
        answer(1, 3, 10),
        answer(2, 4, 20),
        answer(4, 5, 5),
    ]
    assert summary(answers) == Traffic(requests=5, blob_bytes=35, at_once=2)
    assert summary([]) == Traffic(0, 0, 0)


@pytest.mark.root
@pytest.mark.skipif(not (has_nginx() and has_docker_registry()), reason="needs nginx and docker-registry")
def test_each_blob_is_fetched_once_over_each_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"--work": tmp_path / "work", "--sources": tmp_path / "sources", "--results": tmp_path / "results"}
    paths = [str(word) for pair in options.items() for word in pair]
    main(["--scenarios", "tiny", "--link", "8M", "loopback", "--rounds", "1", "--peers", *paths])

    (written,) = (tmp_path / "results").iterdir()
    document = json.loads(written.read_text())
    union = build_workload(SCENARIOS["tiny"], tmp_path / "sources").blob_size
    assert [(result["link"], result["peer"]) for result in document["results"]] == [
        ("8M", "asyncpull"),
        ("loopback", "asyncpull"),
    ]
    for result in document["results"]:
        assert [each["blob_bytes"] for each in result["traffic"]] == [union, union]
        assert len(result["times"]) == len(result["peaks"]) == 1
    assert "tiny over 8M: 2 images, 3 layers" in capsys.readouterr().out
    assert list((tmp_path / "work").iterdir()) == []
