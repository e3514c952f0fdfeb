"""How searches end, and how they go on: kills, signals, and drivers that take turns.

    python bench/endings.py                     all kinds, 20 to 30 minutes on two cores
    python bench/endings.py --quick             one SIGTERM, as a test of the bench
    python bench/endings.py --kinds kill term   only some kinds
    python bench/endings.py --out docs/bench/endings.json

One idempotent command, `tuner search --space F --name N`, is started again and again:

    kill       SIGKILL at random moments, every second one while trials train
    term       SIGTERM at such moments: exit status, 0 if the search was complete, and seconds until
               the process has left
    process-1  the same as process 1 of a container: under `unshare --pid --fork`
    replaced   SIGSTOP; the command is repeated as a service manager does, until another driver has
               taken over and finished; SIGCONT: the first must write nothing
    no-locks   two drivers at one time, where locks are granted to everybody (a library in front of
               flock and fcntl): one trains, the other says who

Each search has a home of its own. When one has finished, the next one begins; what each decided and
measured is compared with that of an undisturbed search. Results are written to `results.jsonl` in
the work folder as they come; the same command goes on where it was cut off.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from parts import measuring
from parts.endings.place import POLL_SECONDS, UNSHARE, Driver, Place

from tuner.journal.events import Reported

KINDS = {"kill": 20, "term": 10, "process-1": 10, "replaced": 1, "no-locks": 1}
QUICK = {"term": 1}
SOURCE = Path(__file__).parent / "parts" / "endings" / "granted_locks.c"
PATIENCE = 600.0  # seconds for anything
Result = dict[str, Any]


class Results:
    """Results in a file of JSON lines; those of an earlier run count.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.all: list[Result] = [json.loads(line) for line in lines]

    def of(self, kind: str) -> list[Result]:
        """Return the results of a kind."""
        return [result for result in self.all if result["kind"] == kind]

    def add(self, kind: str, **values: Any) -> None:
        """Add a result, and show it."""
        result = {"kind": kind, **values}
        self.all.append(result)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result, ensure_ascii=False) + "\n")
        print(json.dumps(result, ensure_ascii=False), file=sys.stderr, flush=True)


class Bench:
    """Ends searches in one work folder.

    Args:
        place: the search.
        results: results so far.
        draw: where random moments come from.
    """

    def __init__(self, place: Place, results: Results, draw: random.Random) -> None:
        self._place, self._results, self._draw = place, results, draw

    def undisturbed(self) -> None:
        """Run the search that all others are compared with."""
        if self._results.of("undisturbed"):
            return
        shutil.rmtree(self._place.home("undisturbed"), ignore_errors=True)
        driver = self._place.start("undisturbed")
        self._until(driver, partial(self._reports, "undisturbed"))
        first_report = driver.seconds
        status = driver.wait(PATIENCE)
        if status:
            raise SystemExit(driver.said)
        self._results.add(
            "undisturbed", first_report_seconds=first_report, seconds=driver.seconds,
            events=len(self._place.story("undisturbed")),
        )  # fmt: skip

    def kills(self, count: int) -> None:
        """Kill drivers, and let the last search finish."""
        self._signals("kill", count, signal.SIGKILL, -signal.SIGKILL)

    def terms(self, count: int) -> None:
        """Terminate drivers."""
        self._signals("term", count, signal.SIGTERM, 143)

    def terms_as_process_1(self, count: int) -> None:
        """Terminate drivers as process 1."""
        self._signals("process-1", count, signal.SIGTERM, 143, UNSHARE)

    def _signals(
        self, kind: str, count: int, number: int, expected: int, wrapper: Sequence[str] = ()
    ) -> None:
        while len(self._results.of(kind)) < count:
            done = len(self._results.of(kind))
            name = self._current(kind)
            driver = self._place.start(name, wrapper)
            moment = self._wait_for_a_moment(driver, name, is_training=done % 2 == 1)
            if driver.has_ended:
                self._check_finished(kind, name, driver)
                continue
            sent = time.monotonic()
            with suppress(ProcessLookupError):  # it has just ended
                driver.send(number)
            status = driver.wait(PATIENCE)
            self._results.add(
                kind, search=name, moment=moment, after_start_seconds=sent - driver.started,
                status=status, seconds=time.monotonic() - sent,
                is_expected=status == expected or (status == 0 and self._is_whole(name)),
                reports=self._reports(name), load=os.getloadavg()[0],
            )  # fmt: skip
        self._finish(kind)

    def _current(self, kind: str) -> str:
        """Return the search that is being disturbed: the next one where one has finished."""
        return f"{kind}-{len(self._results.of(f'{kind} finished')) + 1}"

    def _wait_for_a_moment(self, driver: Driver, name: str, *, is_training: bool) -> str:
        """Wait until a random moment: as a driver starts, or after a report of its own."""
        (whole,) = self._results.of("undisturbed")
        first = whole["first_report_seconds"]
        if not is_training:
            # a process that the kernel has just made process 1 hears nothing before Python is up
            seconds = self._draw.uniform(1.0, first)
            while driver.seconds < seconds and not driver.has_ended:
                time.sleep(POLL_SECONDS)
            return "start"
        before = self._reports(name)
        self._until(driver, lambda: self._reports(name) > before)
        until = time.monotonic() + self._draw.uniform(0.0, whole["seconds"] - first) / 2
        while time.monotonic() < until and not driver.has_ended:
            time.sleep(POLL_SECONDS)
        return "training"

    def _finish(self, kind: str) -> None:
        """Let the search that was disturbed last end by itself."""
        name = self._current(kind)
        if any(result["search"] == name for result in self._results.of(kind)):
            driver = self._place.start(name)
            driver.wait(PATIENCE)
            self._check_finished(kind, name, driver)

    def _check_finished(self, kind: str, name: str, driver: Driver) -> None:
        """Note whether a finished search equals the undisturbed one."""
        status = driver.wait(PATIENCE)
        if status:
            raise SystemExit(f"{name} ended with status {status}:\n{driver.said}")
        self._results.add(
            f"{kind} finished", search=name, status=status, is_equal=self._is_whole(name),
            epochs=self._place.epoch(name),
        )  # fmt: skip

    def replaced(self, count: int) -> None:
        """Stop a driver, let another take over and finish, and wake the first."""
        for number in range(len(self._results.of("replaced")), count):
            name = f"replaced-{number + 1}"
            shutil.rmtree(self._place.home(name), ignore_errors=True)
            first = self._place.start(name)
            self._until(first, lambda name=name: self._reports(name) > 1)  # type: ignore[misc]
            stopped = time.monotonic()
            first.send(signal.SIGSTOP)
            refusals, locked, taken = -1, 0, 0.0
            status = 2
            while status == 2:  # another driver runs it, as far as anybody knows
                refusals += 1
                time.sleep(1.0)
                second = self._place.start(name)
                self._until(second, lambda name=name: self._place.epoch(name) > 1)  # type: ignore[misc]
                taken = time.monotonic() - stopped
                status = second.wait(PATIENCE)
                if second.has_said("database is locked"):  # it was stopped in a write of MLflow
                    first.send(signal.SIGCONT)
                    time.sleep(self._draw.uniform(0.1, 0.5))
                    stopped, locked = time.monotonic(), locked + 1
                    first.send(signal.SIGSTOP)
            data, files = self._files(name)
            first.err.write_text("", encoding="utf-8")
            first.send(signal.SIGCONT)
            first_status = first.wait(PATIENCE)
            self._results.add(
                "replaced", search=name, seconds=taken, refusals=refusals,
                locked=locked, status=status,
                first_status=first_status, wrote_nothing=self._files(name) == (data, files),
                is_equal=self._is_whole(name),
            )  # fmt: skip

    def without_locks(self, count: int) -> None:
        """Start a second driver beside one that trains, where locks are granted to everybody."""
        for number in range(len(self._results.of("no-locks")), count):
            name = f"no-locks-{number + 1}"
            shutil.rmtree(self._place.home(name), ignore_errors=True)
            library = self._place.folder / "granted_locks.so"
            compiler = shutil.which("gcc") or shutil.which("cc") or "c++"
            command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"]
            subprocess.run(command, check=True)
            homes = str(self._place.home("").resolve())
            broken = {"LD_PRELOAD": str(library.resolve()), "GRANTED_LOCKS": homes}
            first = self._place.start(name, environment=broken)
            self._until(first, lambda name=name: self._reports(name) > 0)  # type: ignore[misc]
            second = self._place.start(name, environment=broken)
            second.err = second.err.rename(self._place.folder / f"{name}.second.err")
            status = second.wait(PATIENCE)
            first_status = first.wait(PATIENCE)
            says = f"is being run by process {first.process.pid} on"
            self._results.add(
                "no-locks", search=name, seconds=first.seconds, second_status=status,
                says_who=second.has_said(says), status=first_status,
                is_equal=self._is_whole(name), epochs=self._place.epoch(name),
            )  # fmt: skip

    def _reports(self, name: str) -> int:
        return self._place.count(name, Reported)

    def _is_whole(self, name: str) -> bool:
        return self._place.story(name) == self._place.story("undisturbed")

    def _files(self, name: str) -> tuple[bytes, list[str]]:
        """Return the journal and the names of all files of a search but those of Ray Tune."""
        folder = self._place.searched(name)
        paths = [path.relative_to(folder) for path in folder.rglob("*")]
        names = sorted(str(path) for path in paths if "tune" not in path.parts)
        return (folder / "journal.jsonl").read_bytes(), names

    def _until(self, driver: Driver, happens: Callable[[], bool | int]) -> None:
        """Wait until something happens, or a driver has ended."""
        until = time.monotonic() + PATIENCE
        while not driver.has_ended and not happens():
            if time.monotonic() > until:
                raise SystemExit(f"nothing happens:\n{driver.said}")
            time.sleep(4 * POLL_SECONDS)


def rows(results: Results) -> Iterator[list[Any]]:
    """Yield a row of the table for each kind: what was done, and what came of it."""
    for kind in ("kill", "term", "process-1"):
        done, finished = results.of(kind), results.of(f"{kind} finished")
        if not done:
            continue
        equal = sum(result["is_equal"] for result in finished)
        what = {
            "kill": "SIGKILL",
            "term": "SIGTERM",
            "process-1": "SIGTERM as process 1 of a PID namespace",
        }[kind]
        yield [
            f"{len(done)} × {what}",
            "" if kind == "kill" else _statuses(done),
            None if kind == "kill" else measuring.spread(each["seconds"] for each in done),
            f"{equal} of {len(finished)} journals equal",
        ]
    for each in results.of("replaced"):
        wrote = "nothing" if each["wrote_nothing"] else "SOMETHING"
        yield [
            "SIGSTOP, another driver, SIGCONT",
            f"{each['first_status']}: the first wrote {wrote}",
            each["seconds"],
            _equal(each),
        ]
    for each in results.of("no-locks"):
        who = "says who" if each["says_who"] else "DOES NOT SAY WHO"
        yield [
            "two drivers, locks granted to both",
            f"{each['second_status']}: the second {who}",
            each["seconds"],
            _equal(each),
        ]


def _statuses(done: Sequence[Result]) -> str:
    counts = {status: 0 for status in sorted({each["status"] for each in done})}
    for each in done:
        counts[each["status"]] += 1
    return ", ".join(f"{count} × {status}" for status, count in counts.items())


def _equal(result: Result) -> str:
    return f"{int(result['is_equal'])} of 1 journals equal"


def goals(results: Results) -> list[Any]:
    """Return what must hold of all kinds that were run."""
    finished = [each for each in results.all if "is_equal" in each]
    terms = [*results.of("term"), *results.of("process-1")]
    others = [*results.of("replaced"), *results.of("no-locks")]
    good = [
        *(each["is_equal"] for each in finished),
        *(each["is_expected"] for each in (*terms, *results.of("kill"))),
        *(each.get("wrote_nothing", True) and each.get("says_who", True) for each in others),
    ]
    share = sum(good) / len(good) if good else 1.0
    found = [measuring.goal("share of endings that are as they must be", share, least=1.0)]
    if terms:
        seconds = statistics.median(each["seconds"] for each in terms)
        found.append(measuring.goal("median seconds after SIGTERM", seconds, most=3.0))
    return found


def main() -> int:
    """End searches, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="default: all")
    parser.add_argument("--trials", type=int, default=9, help="of each search")
    parser.add_argument("--quick", action="store_true", help="one SIGTERM")
    parser.add_argument("--work", type=Path, help="work folder (default: endings in /tmp)")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args()
    counts = QUICK if options.quick else KINDS
    kinds = [kind for kind in options.kinds or counts if kind in counts]
    work = options.work or Path(tempfile.gettempdir(), "endings")
    place = Place(work, 2 if options.quick else options.trials, 4000 if options.quick else 12000)
    place.make()
    results = Results(work / "results.jsonl")
    bench = Bench(place, results, random.Random(len(results.all)))
    bench.undisturbed()
    run: dict[str, Callable[[int], None]] = {
        "kill": bench.kills, "term": bench.terms, "process-1": bench.terms_as_process_1,
        "replaced": bench.replaced, "no-locks": bench.without_locks,
    }  # fmt: skip
    for kind in kinds:
        run[kind](counts[kind])
    columns = ["what", "exit status", "seconds", "searches"]
    table = {"title": "How searches end", "columns": columns, "rows": [*rows(results)]}
    result = {
        "bench": "endings", "about": measuring.about(["ray", "mlflow", "torch"]),
        "tables": [table], "goals": goals(results), "notes": [],
        "numbers": {"results": results.all},
    }  # fmt: skip
    measuring.finish(result, options.out, lambda path: None, None)
    return 0 if all(map(measuring.is_met, result["goals"][:1])) else 1


if __name__ == "__main__":
    sys.exit(main())
