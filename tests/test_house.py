"""The rules of the house, read from the source: who may import what, and how modules look."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "detox_tune"
ROOMS = ("data", "model", "training", "evaluation", "tuning")
"""Each room may import itself and those before it."""
SHARED = (
    *("command_line", "config", "errors", "files", "long_work", "machine", "plain_console"),
    "settings",
)
"""Modules that every room may import; they import no room."""
MAX_LINES = 320

HOMES = {
    "ray": ("detox_tune/tuning/", "detox_tune/search.py"),
    "bitsandbytes": ("detox_tune/model/",),
    "altair": ("detox_tune/tuning/report/",),
    "vl_convert": ("detox_tune/tuning/report/",),
    "matplotlib": (),
    "plotly": (),
}
"""Packages that only these files or folders may import."""
UNSAFE_IMPORTS = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_ARGUMENTS = {"trust_remote_code": True, "weights_only": False}
DISTRIBUTIONS = {"sklearn": "scikit-learn", "vl_convert": "vl-convert-python", "yaml": "pyyaml"}
"""Distribution of an imported package, where the two names differ by more than `_`."""

MODULES = sorted(PACKAGE.rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported_names(module: ast.Module, package: list[str]) -> Iterator[str]:
    """Dotted names that a module imports anywhere, also inside functions and type checks.

    `package` holds the parts of the package that its relative imports start from.
    """
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            origin = [*base, *([node.module] if node.module else [])]
            yield from (".".join([*origin, alias.name]) for alias in node.names)


def imports(path: Path) -> set[str]:
    return set(imported_names(tree(path), list(path.relative_to(ROOT).parent.parts)))


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def public(name: str) -> bool:
    return not name.startswith("_")


def test_the_package_is_found() -> None:
    assert PACKAGE / "__init__.py" in MODULES
    assert all((PACKAGE / room / "__init__.py").is_file() for room in ROOMS)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import ray.tune as t", ["ray.tune"]),
        ("def f():\n    from ray import tune", ["ray.tune"]),
        ("from .text import words", ["detox_tune.data.text.words"]),
        ("from ..config import TrialConfig", ["detox_tune.config.TrialConfig"]),
        ("from . import text", ["detox_tune.data.text"]),
    ],
)
def test_imports_are_read(source: str, found: list[str]) -> None:
    assert list(imported_names(ast.parse(source), ["detox_tune", "data"])) == found


def test_heavy_packages_are_imported_in_their_home_only() -> None:
    strays = [
        f"{name_of(path)} imports {package}"
        for path in MODULES
        for package, homes in HOMES.items()
        if package in tops(path) and not any(name_of(path).startswith(home) for home in homes)
    ]
    assert strays == []


def test_rooms_import_only_rooms_before_them() -> None:
    strays = []
    for path in MODULES:
        place = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if place in ROOMS:
            allowed = {*SHARED, "__version__", *ROOMS[: ROOMS.index(place) + 1]}
        elif place in SHARED:
            allowed = {*SHARED}
        elif place == "__init__":
            allowed = set()
        else:
            continue  # a command may use every room
        used = {name.split(".")[1] for name in imports(path) if name.startswith("detox_tune.")}
        strays += [f"{name_of(path)} imports {name}" for name in sorted(used - allowed)]
    assert strays == []


def test_third_party_imports_are_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    optional = [name for extra in ("pan", "ctranslate2", "track") for name in extras[extra]]
    requirements = [*project["dependencies"], *optional]
    declared = {re.split(r"[^A-Za-z0-9._-]", requirement)[0] for requirement in requirements}
    imported = set[str]().union(*map(tops, MODULES)) - sys.stdlib_module_names - {"detox_tune"}
    names = {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in imported}
    assert names - declared == set()


def test_modules_are_short_and_have_telling_names() -> None:
    lines = {name_of(path): sum(1 for _ in path.open(encoding="utf-8")) for path in MODULES}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}
    assert {path.stem for path in MODULES} & {"utils", "util", "helpers", "common", "misc"} == set()


def test_nothing_that_runs_code_from_files() -> None:
    unsafe = []
    for path in MODULES:
        # Ray pickles a run's own state, and what we hand to it there has to follow.
        allowed = {"ray.cloudpickle"} if path.is_relative_to(PACKAGE / "tuning") else set()
        allowed |= {"joblib.cpu_count", "pickle.UnpicklingError"}
        pickles = {name for name in imports(path) if UNSAFE_IMPORTS & set(name.split("."))}
        unsafe += [f"{name_of(path)} imports {name}" for name in sorted(pickles - allowed)]
        unsafe += [
            f"{name_of(path)}:{node.value.lineno}: {node.arg}={node.value.value}"
            for node in ast.walk(tree(path))
            if isinstance(node, ast.keyword)
            and node.arg in UNSAFE_ARGUMENTS
            and isinstance(node.value, ast.Constant)
            and node.value.value is UNSAFE_ARGUMENTS[node.arg]
        ]
    assert unsafe == []


def test_only_plain_consoles_are_made() -> None:
    """Rich's own hands controls in data through to the terminal."""
    strays = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id == "Console"
    ]
    assert strays == []


def documented(path: Path) -> Iterator[tuple[str, str | None]]:
    """What is public in a module, each with its docstring: itself, functions, classes, methods.

    Methods of a class with a base are left out: what they override is documented there.
    """
    module = tree(path)
    yield "the module", ast.get_docstring(module)
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and public(node.name):
            yield node.name, ast.get_docstring(node)
        if isinstance(node, ast.ClassDef) and public(node.name) and not node.bases:
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and public(method.name):
                    yield f"{node.name}.{method.name}", ast.get_docstring(method)


def test_everything_public_has_a_docstring() -> None:
    bare = [f"{name_of(p)}: {name}" for p in MODULES for name, text in documented(p) if not text]
    assert bare == []


def test_importing_the_package_is_light() -> None:
    heavy = ["torch", "transformers", "ray", "optuna", "peft", "datasets", "bitsandbytes", "numpy"]
    code = f"import sys, detox_tune; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert loaded.stdout.strip() == "[]"
