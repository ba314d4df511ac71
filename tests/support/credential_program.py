"""A real ``docker-credential-*`` program, as a script that keeps its secrets in a file."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PROGRAM = """#!{python} -ISs
import json, os, sys

action, text = sys.argv[1], sys.stdin.read()
path = {kept!r}
kept = json.load(open(path))
with open(path + ".log", "a") as log:
    log.write(f"{{action}} {{os.environ.get('MARK', '')}}\\n")
if {fails_with!r}:
    sys.exit(print({fails_with!r}) or 1)
if action == "get" and text in kept:
    print(json.dumps({{"ServerURL": text, "Username": kept[text][0], "Secret": kept[text][1]}}))
elif action == "list":
    print(json.dumps({{server: user for server, (user, _) in kept.items()}}))
elif action == "store":
    entry = json.loads(text)
    kept[entry["ServerURL"]] = entry["Username"], entry["Secret"]
elif action == "erase" and text in kept:
    del kept[text]
else:
    sys.exit(print("credentials not found in native keychain") or 1)
json.dump(kept, open(path, "w"))
"""


def credential_program(
    directory: Path, name: str, kept: Mapping[str, tuple[str, str]], *, fails_with: str = ""
) -> Path:
    """Install docker-credential-NAME in ``directory``; return the file in which it keeps what it knows.

    Next to that file is a log of the actions, each with the variable MARK of the program's environment.
    """
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}.json"
    path.write_text(json.dumps(kept))
    program = directory / f"docker-credential-{name}"
    program.write_text(_PROGRAM.format(python=sys.executable, kept=str(path), fails_with=fails_with))
    program.chmod(0o755)
    return path
