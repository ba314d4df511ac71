"""The cases of registries.conf, tried with skopeo: where it looks for a reference, and in which order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from asyncpull.spec.reference import parse_reference
from tests.support.registries_conf import LOCATIONS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.peers import Peer

# Nobody listens at that proxy, so every attempt fails at once, and the next one is tried.
_ASK = """
for file in "$1"/*.conf; do
  echo "# $(basename "$file" .conf)"
  HTTPS_PROXY=http://127.0.0.1:1 HTTP_PROXY=http://127.0.0.1:1 HOME="$1" timeout 60 \
    skopeo --debug --registries-conf "$file" inspect --raw "docker://$(cat "${file%.conf}.reference")" 2>&1
done
true
"""


def test_skopeo_looks_in_the_same_places(peer: Peer, place: Path) -> None:
    if not peer.has("skopeo"):
        pytest.skip("no skopeo")
    for number, (text, reference, _expected) in enumerate(LOCATIONS):
        (place / f"{number:03}.conf").write_text(text)
        (place / f"{number:03}.reference").write_text(reference)
    said = peer.run("sh", "-c", _ASK, "sh", place)
    answers = re.split(r"^# (\d+)\n", said, flags=re.MULTILINE)[1:]
    tried = {int(number): _TRIED.findall(log) for number, log in zip(answers[::2], answers[1::2], strict=True)}
    assert tried == {
        number: [str(parse_reference(reference))] if expected is None else [each.lstrip("!") for each in expected]
        for number, (_text, reference, expected) in enumerate(LOCATIONS)
    }


_TRIED = re.compile(r'Trying to access \\"([^"\\]*)\\"')
