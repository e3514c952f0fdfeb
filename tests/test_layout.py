"""The floors of the house: imports go down, no circles, rooms and files of a readable size.

Lazy imports and imports for type checkers count like all others.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up: a room, or a file that lies in no room, imports only from those before it.
FLOORS: Mapping[str, tuple[str, ...]] = {
    "model": (
        "errors", "files", "keys", "progress", "parallel", "randomness", "spec", "device",
        "tokenizer", "sources", "corpus", "network", "optimizers", "checkpoints", "stack", "engine",
        "generation", "exchange",
    ),
    "tuner": (
        "clock", "leaving", "texts", "errors", "home", "lease", "space", "samplers", "schedulers",
        "space_file", "conductor", "journal", "storage", "results", "tracking", "trained",
        "summaries", "report", "transfer", "scaling", "knowledge", "publish", "notify", "workers",
        "validation", "driver", "jobs", "serve", "housekeeping", "terminal", "commands",
        "arguments", "cli", "__main__",
    ),
}  # fmt: skip
MOST_FILES, MOST_LINES, MOST_BESIDE = 15, 420, 8


def modules(root: Path, package: str) -> dict[str, Path]:
    """Dotted name → file."""
    names = {}
    for path in sorted((root / package).rglob("*.py")):
        dotted = ".".join(path.relative_to(root).with_suffix("").parts)
        names[dotted.removesuffix(".__init__")] = path
    return names


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules of ours that a file imports, wherever in the file."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            for alias in node.names:
                dotted = f"{node.module}.{alias.name}"
                if dotted in known or node.module in known:
                    yield dotted if dotted in known else str(node.module)


def graph(root: Path) -> dict[str, set[str]]:
    """Module → the modules of ours that it imports."""
    known = {name: path for package in FLOORS for name, path in modules(root, package).items()}
    return {name: set(imports(path, known)) - {name} for name, path in known.items()}


def room_of(module: str) -> tuple[str, str]:
    """Package and room of a module, or package and file where it lies in no room."""
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0]


def upward(arrows: Mapping[str, set[str]]) -> list[str]:
    """Every import that climbs; the faces of the packages themselves are on top of everything."""
    found = []
    for module, targets in arrows.items():
        package, room = room_of(module)
        for target in sorted(targets):
            target_package, target_room = room_of(target)
            climbs = package == "model" and target_package == "tuner"
            if room and target_room and package == target_package:
                floors = FLOORS[package]
                climbs = floors.index(target_room) > floors.index(room)
            if climbs:
                found.append(f"{module} imports {target}")
    return found


def circle(arrows: Mapping[str, set[str]]) -> list[str]:
    """The modules of a circle of imports; empty if there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.slow
def test_every_room_has_a_floor() -> None:
    rooms = {room_of(module) for module in graph(ROOT)} - {("model", ""), ("tuner", "")}
    assert rooms == {(package, room) for package, floors in FLOORS.items() for room in floors}


@pytest.mark.slow
def test_imports_go_down() -> None:
    assert upward(graph(ROOT)) == []


@pytest.mark.slow
def test_imports_have_no_circle() -> None:
    assert circle(graph(ROOT)) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("model/spec/planted.py", "from model.engine.engine import Engine"),
        ("model/keys.py", "def f() -> None:\n    import tuner.home"),
        ("tuner/space/planted.py", "def f() -> None:\n    from tuner.driver import search"),
        (
            "tuner/conductor/planted.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
            "    from tuner.results.result import SearchResult",
        ),
    ],
)
def test_planted_import_upwards_is_found(tmp_path: Path, file: str, line: str) -> None:
    for package in FLOORS:
        for name, path in modules(ROOT, package).items():
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text("" if name not in line else "x = 1\n", encoding="utf-8")
    (tmp_path / file).write_text(line, encoding="utf-8")
    (found,) = upward(graph(tmp_path))
    assert found.startswith(file.removesuffix(".py").replace("/", "."))


def test_planted_circle_is_found(tmp_path: Path) -> None:
    for name, imported in (("one", "two"), ("two", "one")):
        (tmp_path / "model" / "spec").mkdir(parents=True, exist_ok=True)
        text = f"def f():\n    from model.spec import {imported}\n"
        (tmp_path / "model" / "spec" / f"{name}.py").write_text(text)
    assert set(circle(graph(tmp_path))) == {"model.spec.one", "model.spec.two"}


def test_rooms_and_files_have_a_readable_size() -> None:
    for package in FLOORS:
        for path in modules(ROOT, package).values():
            lines = len(path.read_text(encoding="utf-8").splitlines())
            assert lines <= MOST_LINES, f"{path} has {lines} lines; split it by subject"
            files = len(list(path.parent.glob("*.py"))) - 1  # without __init__.py
            assert files <= MOST_FILES, f"{path.parent} has {files} files; split the room"


def test_few_files_lie_beside_the_rooms() -> None:
    for package in FLOORS:
        beside = [path.name for path in (ROOT / package).glob("*.py")]
        assert len(beside) <= MOST_BESIDE, f"{package} has {beside} beside its rooms"


def trees(package: str = "tuner") -> Iterator[tuple[str, ast.Module]]:
    for name, path in modules(ROOT, package).items():
        yield name, parsed(path)


def names_in(tree: ast.AST) -> set[str]:
    """Names that a module imports, calls or uses as attributes."""
    names = {
        alias.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for alias in n.names
    }
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return names | {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def called(tree: ast.AST) -> set[str]:
    """Names of the functions and classes that a module calls."""
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {
        call.id if isinstance(call, ast.Name) else call.attr
        for call in calls
        if isinstance(call, ast.Name | ast.Attribute)
    }


READERS = {"Feed", "JournalTail", "feed", "read_entries", "read_journal", "read_search"}
THREADS = {"Thread", "Timer", "ThreadPoolExecutor"}


def followers() -> set[str]:
    """Modules that start a thread, and read a journal or are a `Source`'s reader in it."""
    found = set()
    for name, tree in trees():
        reads = READERS & called(tree) or "Source" in names_in(tree)
        if THREADS & called(tree) and reads:
            found.add(name)
    return found


def test_one_module_follows_journals() -> None:
    """A thread that reads a journal is a `Follower`; what it writes is a `Projection`."""
    # these hand feeds to followers; their threads import modules and open the store
    others = {"tuner.driver.start", "tuner.driver.training"}
    assert followers() - others == {"tuner.journal.follower"}


def test_one_module_folds_journals() -> None:
    """Nothing but the fold turns events into trials; the conductor makes those that it decides."""
    makers = {name for name, tree in trees() if "Trial" in called(tree)}
    assert {name for name in makers if not name.startswith("tuner.conductor.")} == {
        "tuner.journal.fold"
    }
    takers = {
        name for name, tree in trees()
        if {"Reported", "TrialBegun", "TrialFailed"} <= names_in(tree) | called(tree)
    }  # fmt: skip
    assert takers == {
        "tuner.journal.events", "tuner.journal.fold", "tuner.journal.repeat", "tuner.driver.driver"
    }  # fmt: skip


def test_one_module_says_who_is_dead() -> None:
    """Of the drivers: by boot, namespace, process and its start."""
    words = {"boot_id", "pid_exists", "Life"}
    knowing = {name for name, tree in trees() if words & names_in(tree)}
    assert {name for name in knowing if not name.startswith("tuner.lease.")} == set()
    leases = [name for name, tree in trees() for node in tree.body
              if isinstance(node, ast.ClassDef) and node.name.endswith("Lease")]  # fmt: skip
    assert leases == ["tuner.lease.lease"]


def test_rooms_import_no_private_names_of_others() -> None:
    for package in FLOORS:
        for name, tree in trees(package):
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and node.module:
                    target = room_of(node.module)
                    private = [a.name for a in node.names if a.name.startswith("_")]
                    assert not private or target == room_of(name) or target[0] not in FLOORS, (
                        f"{name} imports {private} of {node.module}"
                    )


def test_every_room_says_what_it_is() -> None:
    """Its docstring names what is found there, and all that it names is there."""
    for package, floors in FLOORS.items():
        for room in floors:
            folder = ROOT / package / room
            if not folder.is_dir():
                continue
            docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
            assert docstring, folder
            text = "\n".join(path.read_text() for path in folder.glob("*.py"))
            names = docstring.partition("Main name")[2].partition(".\n")[0]
            for name in re.findall(r"`(\w+)`", names):
                assert re.search(rf"^(?:class|def) {name}\b|^{name}\b.* =", text, re.M), (
                    f"{package}/{room} names {name}, which is not there"
                )


def test_no_module_is_called_like_a_public_name() -> None:
    """`tuner.search` is a function; importing a module `tuner/search.py` would replace it."""
    for package in FLOORS:
        public = set(import_module(package).__all__)
        assert public.isdisjoint(path.stem for path in (ROOT / package).iterdir()), package


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for package in FLOORS:
        for module, path in modules(ROOT, package).items():
            for node in parsed(path).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places.setdefault(node.name, []).append(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
