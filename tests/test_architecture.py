"""The rules of the house: who imports whom, and that what is public is described."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from spreadq_core.notes import NoteName

ROOT = Path(__file__).parents[1]
PACKAGES = ["spreadq_core", "transports", "spreadq", "sim", "bench", "tests"]

PURE = {
    "__future__",
    "abc",
    "bisect",
    "collections",
    "collections.abc",
    "enum",
    "hashlib",
    "heapq",
    "itertools",
    "typing",
}
"""All of the standard library that the core may import: nothing that reads or changes the world."""

VALUES = {f"spreadq_core.{name}" for name in ("ids", "errors", "events", "effects", "messages")}
"""What transports may import of the core, beside what these import themselves."""

MAY_IMPORT = {
    "spreadq_core": {"spreadq_core"},
    "transports": {"transports", "spreadq_core"},
    "spreadq": {"spreadq", "transports", "spreadq_core"},
    "sim": {"sim", "spreadq_core"},
    "bench": set(PACKAGES) - {"tests"},
    "tests": set(PACKAGES),
}
"""Of our own packages. Imports go one way, and nothing imports the tests."""


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Full names of all modules that a file imports, wherever in it; of `from a import b` also a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules(names):
    """Those of some names that are modules of ours."""
    ours = {module_name(path) for package in PACKAGES for path in sources(package)}
    return {name for name in names if name in ours}


ALL = [path for package in PACKAGES for path in sources(package)]


@pytest.mark.parametrize("path", ALL, ids=module_name)
def test_imports_go_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    roots = {name.partition(".")[0] for name in imports(path)}
    assert roots & set(PACKAGES) <= MAY_IMPORT[package]


@pytest.mark.parametrize("path", sources("spreadq_core"), ids=module_name)
def test_the_core_imports_nothing_that_is_not_pure(path):
    roots = {"spreadq_core", "attrs", "msgspec"}
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        for name in names:
            assert name in PURE or name.partition(".")[0] in roots, f"{name} is not for the core"


@pytest.mark.parametrize("path", sources("transports"), ids=module_name)
def test_transports_import_only_values_of_the_core(path):
    allowed = set(VALUES)
    for value in VALUES:
        allowed |= modules(imports(ROOT / f"{value.replace('.', '/')}.py"))
    of_core = {name for name in modules(imports(path)) if name.startswith("spreadq_core.")}
    assert of_core <= allowed


def test_nothing_is_ever_unpickled():
    for path in ALL:
        assert not {"pickle", "marshal", "shelve"} & {name.partition(".")[0] for name in imports(path)}, path


def test_only_the_simulator_imports_simpy():
    for package in PACKAGES:
        if package not in ("sim", "tests"):
            for path in sources(package):
                assert "simpy" not in {name.partition(".")[0] for name in imports(path)}, path


def test_the_core_imports_nothing_in_a_circle():
    graph = {module_name(path): modules(imports(path)) for path in sources("spreadq_core")}
    done = set()

    def visit(module, above):
        assert module not in above, f"a circle: {' -> '.join([*above, module])}"
        if module not in done:
            for imported in sorted(graph[module] - {"spreadq_core"}):
                visit(imported, [*above, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])


def public(node, where):
    """The public definitions in a module or class, each with the name of its place."""
    for child in node.body:
        name = getattr(child, "name", "_")
        if not name.startswith("_"):
            yield child, f"{where}.{name}"
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{where}.{name}")


@pytest.mark.parametrize("path", sources("spreadq_core"), ids=module_name)
def test_what_is_public_in_the_core_has_a_docstring(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "of the module"
    for node, name in public(tree, module_name(path)):
        assert ast.get_docstring(node), name


@pytest.mark.parametrize("path", sources("spreadq_core"), ids=module_name)
def test_one_file_is_one_subject(path):
    """Files and functions stay short enough to be read at once."""
    text = path.read_text()
    assert len(text.splitlines()) <= 600
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"


def test_the_notes_of_the_core_are_those_that_are_registered():
    used = set()
    for path in sources("spreadq_core"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "NoteName":
                used.add(node.attr)
    assert used == set(NoteName.__members__)
