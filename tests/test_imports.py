"""Who imports whom: no circles, lazy imports and those for types included."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "semcast"


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, modules: set[str]) -> set[str]:
    """The modules of semcast from which a file takes names, wherever in the file."""
    package = module_of(path).split(".") if path.name == "__init__.py" else module_of(path).split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            inside = {f"{base}.{name.name}" for name in node.names}
            found |= (inside & modules) or {base}  # `from . import plots` takes the module plots
    return (found & modules) - {module_of(path)}


def test_no_module_needs_itself():
    paths = sorted(PACKAGE.rglob("*.py"))
    modules = {module_of(path) for path in paths}
    graph = {module_of(path): imported(path, modules) for path in paths}
    assert (
        len(graph) > 100
        and "semcast.transmitter" in graph["semcast.link"]
        and "semcast.web.work" in graph["semcast.web.worker"]
    )
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))
