"""Coverage-guided fuzzing of the targets, one after the other: ``scripts/fuzz [--seconds N] [TARGET…]``.

libFuzzer, by atheris, changes inputs and keeps those that reach lines which none reached before. It never returns, so
each target has a process of its own, forked from this one, which has imported everything instrumented. Afterwards what
was kept is run once more, for the memory and the steps that it takes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import logging
import os
import re
import resource
import shutil
import sys
import tempfile
import time
from contextlib import redirect_stderr
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

try:
    import atheris
except ImportError:
    print("scripts/fuzz: atheris has no wheel for this Python or this machine", file=sys.stderr)
    sys.exit(77)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.fuzz.target import Target

PLACE = Path(__file__).parents[2] / ".fuzz"
"""Where inputs that were worth keeping are kept from one time to the next, and what was found."""
_INSTRUMENTED = ["asyncpull", "tomllib", "yaml"]
_IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_SLOW_SECONDS = 25
_RESIDENT_MIB = 2048
_MEASURED = 300
_EXECUTED = re.compile(rb"stat::number_of_executed_units:\s+(\d+)")


def main() -> int:
    """Fuzz, print a line per target; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Fuzz the parsers of foreign input.")
    parser.add_argument("--seconds", type=float, default=600, help="how long, over all targets (default: %(default)s)")
    parser.add_argument("--runs", type=int, help="how many executions of each target, in place of a time")
    parser.add_argument("--place", type=Path, default=PLACE, help="where inputs are kept (default: .fuzz)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="which (default: all)")
    chosen = parser.parse_args()
    targets = _imported()
    unknown = set(chosen.targets) - targets.keys()
    if unknown:
        parser.error(f"there is no target {', '.join(sorted(unknown))}; there are {', '.join(targets)}")
    names = chosen.targets or list(targets)
    extent = [f"-max_total_time={max(1, round(chosen.seconds / len(names)))}"]
    if chosen.runs is not None:
        extent = [f"-runs={chosen.runs}", "-seed=1"]
    executed, found = 0, list[Path]()
    for name in names:
        # Removed by this line and no other: what unwinds in a fuzzer that has found something must not do it.
        tempfile.tempdir = tempfile.mkdtemp(dir=_IN_MEMORY)
        count, reproducers = fuzz(targets[name], extent, chosen.place.resolve())
        shutil.rmtree(tempfile.tempdir, ignore_errors=True)
        print(f"{name}: {count} executions{''.join(f', FOUND {path}' for path in reproducers)}", flush=True)
        executed, found = executed + count, found + reproducers
    print(f"{executed} executions of {len(names)} targets, {len(found)} findings")
    return 1 if found else 0


def _imported() -> dict[str, Target]:
    with redirect_stderr(io.StringIO()), atheris.instrument_imports(include=_INSTRUMENTED):  # it names each module
        targets: dict[str, Target] = import_module("tests.fuzz.table").TARGETS
    logging.disable()
    return targets


def fuzz(target: Target, extent: Sequence[str], place: Path) -> tuple[int, list[Path]]:
    """How many times it was run, and the inputs that went wrong; ``extent`` are libFuzzer's options of how long."""
    corpus, found = place / "corpus" / target.name, place / "found" / target.name
    for directory in (corpus, found):
        directory.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:32]).write_bytes(seed)
    before, log = set(found.iterdir()), place / f"{target.name}.log"
    options = [*extent, f"-max_len={target.length}"]
    if target.words:
        words = place / f"{target.name}.dict"
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        options.append(f"-dict={words}")
    options += [f"-timeout={_SLOW_SECONDS}", f"-report_slow_units={_SLOW_SECONDS}"]
    options += [f"-rss_limit_mb={_RESIDENT_MIB}", f"-artifact_prefix={found}/"]
    child = os.fork()
    if not child:
        _become_fuzzer(target, [*options, "-print_final_stats=1", str(corpus)], log)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    count = _EXECUTED.search(log.read_bytes())
    reproducers = sorted(set(found.iterdir()) - before)
    if status and not reproducers:
        reproducers = [log]
    return int(count[1]) if count else 0, reproducers + _excessive(target, corpus, found)


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _become_fuzzer(target: Target, arguments: Sequence[str], log: Path) -> None:
    """Be libFuzzer, which ends this process."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))

    def once(data: bytes) -> None:
        target.execute(data)

    atheris.Setup([target.name, *arguments], once)
    atheris.Fuzz()
    os._exit(70)


def _excessive(target: Target, corpus: Path, found: Path) -> list[Path]:
    """Inputs that take more memory or steps than the target allows; the longest of what was kept are looked at."""
    kept = sorted(corpus.iterdir(), key=lambda path: path.stat().st_size)[-_MEASURED:]
    excessive = []
    for path in kept:
        try:
            problem = target.measure(path.read_bytes())
        except Exception as error:  # a finding, if it is not the one that ended the fuzzing
            problem = f"{type(error).__name__}: {error}"
        if problem:
            excessive.append(found / f"excessive-{path.name}")
            shutil.copy(path, excessive[-1])
            print(f"{target.name}: {problem}", flush=True)
    return excessive


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    print(f"{time.monotonic() - started:.0f} seconds", file=sys.stderr)
    sys.exit(code)
