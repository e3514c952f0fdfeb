"""Which of the fast tests execute a line, by one run of them with a coverage context for each."""

from __future__ import annotations

import ast
import importlib
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest
from mutants.sites import Site

FIRST_BATCH = 3.0  # seconds of tests; each later batch is three times as long as the one before
PYTEST = ("-p", "no:cacheprovider", "-q")


class _Recorder:
    """A plugin that gives each test a context of its own in the coverage, and times it."""

    def __init__(self, cov: coverage.Coverage) -> None:
        self._cov = cov
        self.tests: dict[str, dict[str, Any]] = {}
        self.imports: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[None]:
        began = time.perf_counter()
        report = yield
        if isinstance(collector, pytest.Module):
            self.imports[collector.nodeid] = time.perf_counter() - began
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        fixtures = list(getattr(item, "fixturenames", ()))
        self.tests[item.nodeid] = entry = {"fixtures": fixtures, "passed": False}
        self._cov.switch_context(item.nodeid)
        began = time.perf_counter()
        result = yield
        entry["seconds"] = time.perf_counter() - began
        self._cov.switch_context("")
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
        """A fixture that several tests share executes its lines for all of them."""
        if fixturedef.scope == "function":
            return (yield)
        self._cov.switch_context(f"fixture {fixturedef.argname}")
        try:
            return (yield)
        finally:
            self._cov.switch_context(getattr(request.node, "nodeid", ""))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.tests[report.nodeid]["passed"] = report.passed
        elif report.failed:
            self.tests[report.nodeid]["passed"] = False


class Executions:
    """Which of the fast tests execute a line, and how long they take."""

    def __init__(self, folder: Path) -> None:
        """Read what `record` wrote into the folder."""
        self._copy = folder / "tree"
        self._data = coverage.CoverageData(str(folder / "coverage"))
        self._data.read()
        record = json.loads((folder / "tests.json").read_text())
        self.imports: dict[str, float] = record["imports"]
        tests = {name: entry for name, entry in record["tests"].items() if entry["passed"]}
        self.seconds = {name: float(entry["seconds"]) for name, entry in tests.items()}
        self._sharing: dict[str, set[str]] = defaultdict(set)
        for name, entry in tests.items():
            self._sharing[name].add(name)
            for fixture in entry["fixtures"]:
                self._sharing[f"fixture {fixture}"].add(name)

    def executing(self, site: Site) -> set[str]:
        """The tests that execute a place.

        Where an import executes it, the tests that execute functions of its file; without
        functions, the tests of its room.
        """
        contexts = self._data.contexts_by_lineno(str(self._copy / site.file))
        if site.in_function:
            *own, statement = site.lines
            lines = [line for line in own if contexts.get(line)] or [statement]
        else:
            lines = list(_function_lines(self._copy / site.file))
        found = {context for line in lines for context in contexts.get(line, ())}
        tests = {test for context in found for test in self._sharing.get(context, ())}
        return tests if tests or site.in_function else self._of_room(site.file)

    def _of_room(self, file: str) -> set[str]:
        room = f"tests/{file.rpartition('/')[0]}/"
        return {test for test in self.seconds if test.startswith(room)}

    def batches(self, tests: set[str], file: str) -> Iterator[tuple[list[str], float]]:
        """The tests, the quickest files first, and the seconds that they are expected to take.

        The last ones are the others of the room: a cached result has been computed for the first
        test that needed it, and only this one is known to execute the computation.
        """
        yield from self._batches(tests)
        yield from self._batches(self._of_room(file) - tests)

    def _batches(self, tests: set[str]) -> Iterator[tuple[list[str], float]]:
        files: dict[str, list[str]] = defaultdict(list)
        for test in tests:
            files[test.partition("::")[0]].append(test)
        costs = {
            file: self.imports[file] + sum(self.seconds[test] for test in names)
            for file, names in files.items()
        }
        batch: list[str] = []
        cost, limit = 0.0, FIRST_BATCH
        for file in sorted(files, key=lambda file: (costs[file], file)):
            if batch and cost + costs[file] > limit:
                yield batch, cost
                batch, cost, limit = [], 0.0, 3 * limit
            batch += sorted(files[file], key=lambda test: (self.seconds[test], test))
            cost += costs[file]
        if batch:
            yield batch, cost


def _function_lines(path: Path) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines.update(range(node.body[0].lineno, (node.end_lineno or 0) + 1))
    return lines


def record(folder: Path) -> int:
    """Run the fast tests of the copy in `folder`, and write which lines each executes.

    A test that fails is left out. Returns the exit status of pytest if not all tests could run.
    """
    copy = folder / "tree"
    cov = coverage.Coverage(
        data_file=str(folder / "coverage"),
        source=[str(copy / "model"), str(copy / "tuner")],
        config_file=False,
        messages=False,
    )
    recorder = _Recorder(cov)
    cov.start()
    status = pytest.main([*PYTEST, "--tb=short", "-m", "not slow", "tests"], [recorder])
    cov.stop()
    if status not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        return int(status)  # a file that cannot be imported, for example
    cov.save()
    place = Path(importlib.import_module("tuner").__file__ or "")
    assert place.is_relative_to(copy), f"the tests imported {place}"
    entries = {"tests": recorder.tests, "imports": recorder.imports}
    (folder / "tests.json").write_text(json.dumps(entries))
    return 0
