"""Imports of the library only go down its floors, and never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support import ROOT

# From the roof to the cellar. A package stands for all modules in it, unless one of them has its own floor.
# Names on one floor do not import each other.
FLOORS = (
    ("cli",),
    ("ladder", "page", "judging", "doctor"),
    ("report",),
    ("search", "inference", "promotion"),
    ("detection",),
    ("released", "pruning"),
    ("training",),
    ("deploy",),
    ("evaluation",),
    ("topdown", "drawing", "motion"),
    ("data.stream",),
    ("data.shards", "data.mannequins", "data.radiographs"),
    ("data.raw", "data"),
    ("cluster",),
    ("tracking",),
    ("models",),
    ("losses",),
    ("targets",),
    ("detection.graph",),
    ("provenance",),
    ("descriptors",),
    ("skeleton", "geometry", "oks", "fingerprint", "precision"),
    ("ending",),
    ("config", "checkout", "machine"),
    ("files",),
    ("strict_yaml",),
)


@dataclass(frozen=True)
class Import:
    """One module of the library that imports another; `late` where a function does it when it is called."""

    importer: str
    imported: str
    late: bool


def modules(package: Path) -> dict[str, Path]:
    """Every module below `package` by its name, such as `data.raw.formats`; a package by its folder's."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(package: Path) -> Iterator[Import]:
    """Every import between modules of `package`, those for type checking and those inside functions, too."""
    known = modules(package)
    for name, path in known.items():
        tree = ast.parse(path.read_text())
        late = {
            id(inner)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for inner in ast.walk(function)
        }
        for node in ast.walk(tree):
            for module in _modules(node, package.name, known) - {name}:
                yield Import(name, module, id(node) in late)


def imported_by(path: Path, package: str, known: Collection[str]) -> set[str]:
    """The modules of `package`, among those `known`, that the file at `path` imports itself."""
    return set().union(*(_modules(node, package, known) for node in ast.walk(ast.parse(path.read_text()))))


def _modules(node: ast.AST, package: str, known: Collection[str]) -> set[str]:
    """The modules of `package` that an import statement names; any other node names none."""
    found = set()
    for target in _targets(node):
        module = target.removeprefix(f"{package}.") if target.startswith(f"{package}.") else ""
        while module and module not in known:  # `from package.module import name`
            module = module.rpartition(".")[0]
        found.add(module)
    return found - {""}


def _targets(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def floor(module: str) -> tuple[int, str]:
    """On which floor a module is, counted from the roof, and by which name of `FLOORS`. The package itself,
    from which the world imports, is above them all.
    """
    if not module:
        return -1, module
    named = {name: number for number, names in enumerate(FLOORS) for name in names}
    name = module
    while name and name not in named:
        name = name.rpartition(".")[0]
    assert name, f"{module}: give it a floor in {__file__} and in CONTRIBUTING.md"
    return named[name], name


def climbs(package: Path) -> list[str]:
    """The imports that do not go down, in words."""
    found = []
    for each in imports(package):
        (start, room), (end, other) = floor(each.importer), floor(each.imported)
        if end <= start and room != other:
            found.append(f"{each.importer} imports {each.imported}{' (late)' if each.late else ''}")
    return found


def circle(package: Path) -> list[str] | None:
    """Modules that import each other in a circle when they are loaded, if there are any."""
    graph: dict[str, set[str]] = {}
    for each in imports(package):
        if not each.late:
            graph.setdefault(each.importer, set()).add(each.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return None


def test_imports_go_down() -> None:
    assert climbs(ROOT / "rtmpose") == []


def test_no_modules_import_each_other() -> None:
    assert circle(ROOT / "rtmpose") is None


def test_every_module_has_a_floor() -> None:
    for name in filter(None, modules(ROOT / "rtmpose")):
        floor(name)


@pytest.fixture
def crooked(tmp_path: Path) -> Path:
    """A package of three modules: one climbs, two go in a circle of which one half is late."""
    package = tmp_path / "rtmpose"
    for name, text in {
        "__init__": "",
        "files": "from rtmpose import config",
        "config/__init__": "",
        "config/base": "from rtmpose.config.data import x",
        "config/data": "def f():\n    from rtmpose.config.base import y\n    import rtmpose.training",
        "training": "from rtmpose.files import z\nimport os",
    }.items():
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


def test_climbs_and_circles_are_found(crooked: Path) -> None:
    assert climbs(crooked) == ["config.data imports training (late)", "files imports config"]
    assert circle(crooked) is None
    (crooked / "config/data.py").write_text("import rtmpose.config.base")
    assert set(circle(crooked) or ()) == {"config.base", "config.data"}
