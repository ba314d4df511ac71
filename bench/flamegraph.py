"""Where the time of a pull goes: ``scripts/profile [SCENARIO[@LINK]] [--out FILE]`` draws a flame graph of one.

py-spy samples the command and all that descends from it, the nursery and the workers that are forked from it too. By
default it counts only stacks that run; ``--idle`` shows those that wait as well.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cases import cases_of
from bench.images import build_workload, push_image
from bench.links import LINKS, open_link
from bench.orders import fill
from bench.peers import REPOSITORY, ours
from bench.scenarios import SCENARIOS
from tests.support.docker_registry import docker_registry

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORMATS = {".svg": "flamegraph", ".json": "speedscope", ".txt": "raw"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Pull once under py-spy, and say where the graph is."""
    parser = argparse.ArgumentParser(prog="scripts/profile", description="Draw a flame graph of a pull.")
    parser.add_argument("scenario", nargs="?", default="fat-layers", metavar="SCENARIO[@LINK]", help="as scripts/bench")
    parser.add_argument("--out", type=Path, default=Path("profile.svg"), help="also .json, for speedscope, and .txt")
    parser.add_argument("--rate", type=int, default=200, help="samples a second")
    parser.add_argument("--idle", action="store_true", help="count threads that wait, too")
    parser.add_argument("--native", action="store_true", help="show functions of libraries in C as well")
    parser.add_argument("--sources", type=Path, default=REPOSITORY / "bench" / ".work", help="where images are kept")
    options = parser.parse_args(arguments)
    if options.out.suffix not in _FORMATS:
        raise SystemExit(f"{options.out}: the name has to end in one of {', '.join(_FORMATS)}")
    (case,) = cases_of(options.scenario, ["loopback"], [])
    workload = build_workload(SCENARIOS[case.scenario], options.sources)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.sources)))
        registry = stack.enter_context(docker_registry(options.sources / "registry"))
        pushed = [push_image(image, registry) for image in workload.images]
        meter = stack.enter_context(open_link(LINKS[case.link], place / "link", registry))
        address = stack.enter_context(meter.running())
        command = ours()
        words = command.several if len(pushed) > 1 else command.pull
        references = [f"{address}/{reference}" for reference in pushed]
        sample = sampling(options.out, options.rate, idle=options.idle, native=options.native)
        done = subprocess.run([*meter.entrance, *sample, *fill(words, place / "store", references)], check=False)
        if done.returncode != 0:
            raise SystemExit(f"py-spy ended with {done.returncode}")
    print(options.out)


def sampling(out: Path, rate: int, *, idle: bool, native: bool) -> list[str]:
    """Return what goes before a command to have it sampled."""
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or "py-spy"
    flags = ["--idle"] * idle + ["--native"] * native
    format_words = ["--format", _FORMATS[out.suffix], "-o", str(out)]
    return [program, "record", "--subprocesses", "--rate", str(rate), *format_words, *flags, "--"]


if __name__ == "__main__":
    main()
