"""A whole comparison, with the smallest images: with real pulls, down to the results, the page and the tables."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.compare import main
from bench.images import build_workload
from bench.links import Traffic, summary
from bench.orders import Command, Order
from bench.peers import find_peers
from bench.results import load
from bench.scenarios import AGAIN, LAYOUT, SCENARIOS, STORE
from tests.support.docker_registry import is_installed as has_docker_registry
from tests.support.nginx import Answer
from tests.support.nginx import is_installed as has_nginx

if TYPE_CHECKING:
    from pathlib import Path

needs_servers = pytest.mark.skipif(not (has_nginx() and has_docker_registry()), reason="needs nginx, docker-registry")


def test_all_references_at_once_or_one_after_another(tmp_path: Path) -> None:
    words = ("pull", "--root", "{store}/root", "--", "{reference}")
    single = Command("any", "1", ("enter",), words)
    several = replace(single, several=("prefetch", *words[1:]))
    one, two = Order(tmp_path, ("a",)), Order(tmp_path, ("a", "b"), entrance=("netns",))

    with several.job(two) as job:
        assert job.command == ["netns", "enter", "prefetch", "--root", f"{tmp_path}/root", "--", "a", "b"]
    for peer in (several, single):
        with peer.job(one) as job:
            assert job.command == ["enter", "pull", "--root", f"{tmp_path}/root", "--", "a"]
    with single.job(two) as job:
        pulls = [f"pull --root {tmp_path}/root -- {reference}" for reference in ("a", "b")]
        assert job.command == ["netns", "enter", "sh", "-ec", "\n".join(pulls)]


def test_what_is_to_be_there_before_is_brought_without_the_clock(tmp_path: Path) -> None:
    peer = Command("any", "1", (), ("sh", "-c", "echo $1 >>{store}/pulled", "sh", "{reference}"))

    with peer.job(Order(tmp_path, ("b",), before=("a",))) as job:
        assert (tmp_path / "pulled").read_text() == "a\n"
        assert job.command[-1] == "b"


def test_a_process_that_stays_does_both_pulls_itself(tmp_path: Path) -> None:
    peer = Command("ours", "1", (), ("pull", "{reference}"), again=("twice", "{reference}"))

    with peer.job(Order(tmp_path, ("a",), AGAIN, before=("a",))) as job:
        assert (job.command, job.itself) == (["twice", "a"], True)
    assert peer.goals == {STORE, AGAIN}
    assert replace(peer, copy=("copy",)).goals == {STORE, AGAIN, LAYOUT}


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
@needs_servers
def test_each_blob_is_fetched_once_over_each_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*_paths(tmp_path), "--scenarios", "tiny", "--link", "8M", "loopback", "--rounds", "1", "--peers"])

    (written,) = (tmp_path / "results").glob("*.json")
    document = load(written)
    union = build_workload(SCENARIOS["tiny"], tmp_path / "sources").blob_size
    assert document.cases == [("tiny", "8M"), ("tiny", "loopback")]
    for result in document.results:
        assert [each.blob_bytes for each in result.traffic] == [union, union]
        assert len(result.done) == len(result.observations) == 1
        assert (result.written or 0) > union
    assert [
        timeline.phases.keys() >= {"resolve", "fetch", "extract", "commit", "mount"} for timeline in document.timelines
    ]
    assert "tiny over 8M: 2 images, 3 layers" in capsys.readouterr().out
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.root
@needs_servers
def test_the_whole_chain_with_a_peer(tmp_path: Path) -> None:
    if "skopeo" not in {peer.name for peer in find_peers(())}:
        pytest.skip("needs skopeo")
    main([*_paths(tmp_path), "--scenarios", "tiny@cuts:skopeo,floor-tar", "tiny-again:skopeo", "--rounds", "1"])

    page, written, tables = sorted((tmp_path / "results").iterdir())
    document = load(written)
    assert [result.peer for result in document.of(("tiny-again", "loopback"))] == ["asyncpull", "skopeo"]
    assert document.of(("tiny", "cuts"))[0].failures == []
    assert "two tiny images, 50 ms, one connection in three cut" in page.read_text()
    assert "| two tiny images, 1 MB, 50 ms, one connection in three cut | " in tables.read_text()
    shown = tmp_path / "again"
    main(["--report", str(written), "--results", str(shown)])
    assert (shown / page.name).read_text() == page.read_text()


def _paths(tmp_path: Path) -> list[str]:
    options = {"--work": tmp_path / "work", "--sources": tmp_path / "sources", "--results": tmp_path / "results"}
    return [str(word) for pair in options.items() for word in pair]
