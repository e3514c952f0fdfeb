"""Plants mutants in copies of the code, and says which of them the tests do not notice.

A mutant is one small change of one place. Coverage of the fast tests says which tests execute the
place; only these run, the quickest first, until one fails. A mutant that survives shows behaviour
that no test checks, or a change that changes nothing: read it. `make mutants` runs this script.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mutants.executions import PYTEST, Executions, record
from mutants.sites import Mutant, draw_mutants

ROOMS = ("tuner/conductor", "tuner/journal", "model/engine", "tuner/space")
MOST_BYTES = 8 << 30  # of a process whose mutant never stops to allocate
TOO_LONG = (-signal.SIGXCPU, -signal.SIGKILL)  # how a limit of CPU seconds ends a process
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant."""

    mutant: Mutant
    status: str  # killed, survived, timeout, or unexecuted: no fast test executes the place
    tests: int  # that ran at most
    seconds: float


class _Only:
    """A plugin that keeps some tests of the collected files, in their order."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._place = {test: i for i, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._place]
        items.sort(key=lambda item: self._place[item.nodeid])


def _forked(folder: Path, limit: int | None, action: Any, *args: Any) -> int | None:
    """Exit status of an action in a process of its own in a copy; None if it took too long.

    The limit counts seconds of a core, because a busy machine is no reason to end it; four times
    as many pass before one that waits is ended.

    The process has torch, pytest and the like, which this one has imported, but nothing of ours.
    """

    def run() -> None:
        os.setsid()
        output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
        if limit:
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        os.chdir(folder / "tree")
        sys.path[:0] = [str(folder / "tree")]
        os.environ["PYTHONPATH"] = str(folder / "tree")
        os.environ["CI"] = "true"  # hypothesis draws the same examples
        status = action(*args)
        os._exit(status or 0)

    process = FORK.Process(target=run)
    process.start()
    try:
        process.join(4 * limit if limit else None)
        return None if process.exitcode in TOO_LONG else process.exitcode
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)  # also what its tests have started
        process.join()


def _run_tests(tests: Sequence[str]) -> int:
    sys.dont_write_bytecode = True  # two mutants of a file may have one size, in one second
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    files = dict.fromkeys(test.partition("::")[0] for test in tests)
    return int(pytest.main([*PYTEST, "-x", "--tb=no", *files], [_Only(tests)]))


def judge(mutant: Mutant, folder: Path, executions: Executions) -> Verdict:
    """Write a mutant into the copy of this process, run the tests, and take it out again."""
    began = time.perf_counter()
    tests = executions.executing(mutant.site)
    if not tests:
        return Verdict(mutant, "unexecuted", 0, 0.0)
    site, path = mutant.site, folder / "tree" / mutant.site.file
    source = path.read_bytes()
    path.write_bytes(source[: site.start] + mutant.after.encode() + source[site.end :])
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
    status = "survived"
    try:
        for batch, seconds in executions.batches(tests, site.file):
            code = _forked(folder, 20 + round(3 * seconds), _run_tests, batch)
            if code not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
                status = "timeout" if code is None else "killed"
                break
    finally:
        path.write_bytes(source)
    return Verdict(mutant, status, len(tests), time.perf_counter() - began)


def copy_tree(root: Path, folder: Path) -> None:
    """Copy what the tests need into `folder/tree`; compiled modules of a copy stay valid."""
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "build", "runs", ".hypothesis", ".*_cache", "*.egg-info"
    )
    shutil.copytree(root, folder / "tree", ignore=ignored)


_worker: tuple[Path, Executions]  # of a process that judges mutants: its folder


def _begin_worker(folder: Path) -> None:
    global _worker
    own = folder / str(os.getpid())
    copy_tree(folder / "tree", own)
    _worker = own, Executions(folder)


def _judge(mutant: Mutant) -> Verdict:
    return judge(mutant, *_worker)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-n", "--number", type=int, default=100, help="mutants (100)")
    parser.add_argument("--seed", type=int, default=0, help="other mutants for another seed (0)")
    parser.add_argument("--rooms", nargs="+", default=ROOMS, metavar="ROOM", help=" ".join(ROOMS))
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], metavar="DIR",
                        help="another checkout, such as an older one")  # fmt: skip
    parser.add_argument("--processes", type=int, default=1, choices=(1, 2), help="1 or 2 (1)")
    arguments = parser.parse_args()
    for room in arguments.rooms:
        if not (arguments.root / room).is_dir():
            parser.error(f"{arguments.root / room} is not a folder; name rooms as in {ROOMS[0]}")
    return arguments


def main() -> None:
    """Judge some mutants, and print each, the survivors and the rate."""
    arguments = _parse()
    for name in ("torch", "numpy", "optuna", "scipy.stats", "pydantic"):
        importlib.import_module(name)  # once for all processes; nothing of ours
    mutants = draw_mutants(arguments.root, arguments.rooms, arguments.number, arguments.seed)
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        copy_tree(arguments.root, folder)
        began = time.perf_counter()
        if _forked(folder, None, record, folder):
            sys.exit((folder / "output").read_text())
        tests = Executions(folder).seconds
        if _forked(folder, None, _run_tests, [min(tests, key=lambda test: tests[test])]):
            sys.exit((folder / "output").read_text())  # else it would seem that all are killed
        print(f"{len(tests)} fast tests passed in {time.perf_counter() - began:.0f} s", flush=True)
        verdicts = []
        with ProcessPoolExecutor(
            arguments.processes, FORK, initializer=_begin_worker, initargs=(folder,)
        ) as pool:
            for verdict in pool.map(_judge, mutants):
                verdicts.append(verdict)
                print(f"{verdict.status:10} {verdict.seconds:5.1f} s {verdict.tests:5} tests  "
                      f"{verdict.mutant}", flush=True)  # fmt: skip
    print_summary(verdicts)


def print_summary(verdicts: Sequence[Verdict]) -> None:
    """The mutants that no test killed, and how many of each kind."""
    counts = Counter(verdict.status for verdict in verdicts)
    for status in ("survived", "unexecuted"):
        print(f"\n{status}:")
        for mutant in sorted(str(v.mutant) for v in verdicts if v.status == status):
            print(f"  {mutant}")
    noticed = counts["killed"] + counts["timeout"]
    executed = len(verdicts) - counts["unexecuted"]
    print(
        f"\n{len(verdicts)} mutants: {counts['killed']} killed, {counts['timeout']} timeout, "
        f"{counts['survived']} survived, {counts['unexecuted']} executed by no fast test.\n"
        f"The fast tests notice {noticed} of {len(verdicts)}, {noticed} of the {executed} that "
        "they execute."
    )


if __name__ == "__main__":
    sys.path = [entry for entry in sys.path if entry != str(Path(__file__).parent)]
    main()
