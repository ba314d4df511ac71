"""The levels of ARCHITECTURE.md, held against the imports of the code; the exports; what a worker imports."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import asyncpull

PACKAGE = Path(asyncpull.__file__).parent

# A unit may import units of lower levels, and those named for it; units of one level do not know each other.
LEVELS = [
    {"dataclass"},
    {"errors", "kernel", "log"},
    {"spec"},
    {
        "addresses",
        "budget",
        "http1",
        "layer",
        "lockholders",
        "plan",
        "progress",
        "proxies",
        "ranges",
        "retry",
        "scratch",
        "sharing",
        "stall",
        "tls",
        "tree",
        "turnstile",
        "urls",
        "waiting",
        "yamlfile",
    },
    {"estimate", "events", "http", "journal", "lockfile", "memberindex", "spool", "tarstream"},
    {"dockerd", "registry", "fetch", "extract", "newfile", "space", "store"},
    {"access", "limits", "stage", "workers"},
    {"destination", "source"},
    {"trust"},
    {"resolve", "syncfile"},
    {"copying", "pull"},
    {"prefetch"},
    {"copy", "deletion"},
    {"sync"},
    {"demo"},
    {"cli"},
]
EXCEPTIONS = {("spool", "journal"), ("spool", "lockfile")}
LEVEL = {unit: number for number, units in enumerate(LEVELS) for unit in units}


def unit_of(module: str) -> str:
    return module.split(".")[1]


def imports(path: Path) -> set[str]:
    """The units of this package that a file imports; imports for type checking count too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("asyncpull."):
            found.add(unit_of(node.module))
        elif isinstance(node, ast.ImportFrom) and node.module == "asyncpull":
            found.update(alias.name for alias in node.names if (PACKAGE / alias.name).exists())
        elif isinstance(node, ast.Import):
            found.update(unit_of(alias.name) for alias in node.names if alias.name.startswith("asyncpull."))
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
    return found


MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.stem not in ("__init__", "__main__"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_lower_levels(path: Path) -> None:
    unit = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for imported in imports(path) - {unit}:
        assert LEVEL[imported] < LEVEL[unit] or (unit, imported) in EXCEPTIONS, f"{unit} imports {imported}"


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("aiohttp", {"demo"}),
        ("aiohappyeyeballs", {"http1"}),
        ("uvloop", {"cli"}),
        ("rich", {"cli", "demo"}),
        ("click", {"cli"}),
        ("isal", {"layer"}),
        ("zstandard", {"layer", "demo"}),
        ("pysequoia", {"trust"}),
        ("cryptography", {"trust"}),
        ("nacl", {"trust"}),
        ("yaml", {"yamlfile.py"}),
    ],
)
def test_a_library_has_one_home(library: str, homes: set[str]) -> None:
    for path in MODULES:
        names = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        if library in names:
            assert path.relative_to(PACKAGE).parts[0] in homes, f"{path} imports {library}"


def test_only_lockfile_asks_for_locks() -> None:
    for path in MODULES:
        text = path.read_text()
        if path.name not in ("lockfile.py", "turnstile.py"):
            assert "kernel.lock_bytes" not in text, path
        if path.name != "kernel.py":
            assert "fcntl.F_OFD_SETLK" not in text, path
            assert "lockf(" not in text, path


def test_exports_are_sorted_and_resolve() -> None:
    assert list(asyncpull.__all__) == sorted(asyncpull.__all__)
    for name in asyncpull.__all__:
        value = getattr(asyncpull, name)
        assert value.__module__.startswith("asyncpull.")
    with pytest.raises(AttributeError):
        asyncpull.nothing  # noqa: B018


def test_no_module_is_named_after_nothing() -> None:
    assert not [p for p in MODULES if p.stem in {"utils", "util", "helpers", "common", "manager", "misc"}]


def test_every_module_has_a_docstring() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_a_worker_has_no_http_client() -> None:
    code = "import asyncpull.extract.nursery, sys; print(*sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"aiohttp", "asyncio", "uvloop", "rich", "click", "structlog", "aiofiles"} & set(modules)


def test_a_worker_can_be_started_before_the_rest_of_a_pull_is_imported() -> None:
    code = "import asyncpull.workers, asyncpull.store.store, asyncpull.cli.verbs.pull, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"asyncpull.pull", "asyncpull.http", "asyncpull.fetch.fetcher", "asyncpull.registry"} & set(modules)


def test_importing_the_package_imports_no_submodule() -> None:
    code = "import asyncpull, sys; print(*[m for m in sys.modules if m.startswith('asyncpull.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_errors_are_listed_sorted_and_pickle() -> None:
    import pickle

    errors = importlib.import_module("asyncpull.errors")
    assert list(errors.__all__) == sorted(errors.__all__)
    samples = [
        errors.DigestMismatchError("blob", "a", "b", "hint"),
        errors.SizeMismatchError("blob", 1, 2),
        errors.DiffIDMismatchError("layer", "a", "b"),
        errors.LayerError("bad", b"\xff/x", 512, "hint"),
        errors.StoreError("bad", "/x", "hint"),
        errors.TemporaryError("later", retry_after=2.5),
        errors.PolicyError("image", ("one", "two")),
        errors.UsageError("what", "hint"),
    ]
    for error in samples:
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
