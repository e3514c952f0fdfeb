"""Cost of a search beside training: its trials sleep for a known time instead of training.

    python bench/overhead.py                           100 and 1,000 trials of ten reports
    python bench/overhead.py --trials 100 1000 10000   and ten thousand, most of an hour
    python bench/overhead.py --slots 16 64 256         and so many slots (the default)
    python bench/overhead.py --quick                   a dozen short ones, as a test of the bench
    python bench/overhead.py --out FILE.json           also write the result

Ray Tune, the searcher, the journal and the record in SQLite are those of `tuner search`; only the
workers are stubs (parts/overhead/stub.py). Each search runs in a process of its own. Linux only.

*Idle*: time in which a slot waits, beyond the sleep of its trials. *CPU*: processor time of all
processes, Ray's included. Both are counted from the moment when each slot has ended a trial,
because Ray starts its processes before that, once in a search. The cost of a report is a ninth of
the difference between trials of ten reports and of one. *Started* counts the processes that Ray
starts meanwhile: none should.

*Many slots*: four workers with a quarter of the slots each; a trial takes 0.2 s for ten reports, so
that the driver is what limits them; all processes share the cores. *Clients* are the processes of
Ray Tune that read the reports: their time until each slot has ended a trial, and their memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from parts.measuring import BENCH, about, add_options, finish, goal
from parts.memory import descendants, pss_bytes
from parts.processes import cpu_seconds, kind_of

TRIAL_SECONDS = 20.0  # duration of the trials of the goal
PERIOD_SECONDS = 0.5
SPACE = BENCH / "parts" / "overhead" / "space.yaml"
WHAT = "trials of reports, sampler, sleep"
COSTS = {  # number of a run → its column
    "wall_seconds": "wall, s", "start_seconds": "start, s",
    "idle_ms_per_trial": "idle, ms per trial", "cpu_ms_per_trial": "CPU, ms per trial",
    "driver_ms_per_trial": "driver, ms per trial", "driver_ms_first_half": "of the first half",
    "driver_ms_second_half": "of the second half", "processes_started": "started",
    "driver_megabytes": "driver, MB", "driver_kilobytes_per_trial": "driver, kB per trial",
}  # fmt: skip
MANY = {
    "trials": "trials", "start_seconds": "start, s", "reports_per_second": "reports a second",
    "driver_ms_per_report": "driver, ms per report", "clients": "clients",
    "client_seconds_per_slot": "client, s per slot", "megabytes_per_slot": "MB per slot",
    "driver_megabytes": "driver, MB",
}  # fmt: skip
WORKERS, SLOTS = 2, 4  # two slots each, so that a worker's trials cross
MANY_WORKERS, MANY_SECONDS, MANY_TRIALS = 4, 0.2, 8  # of many slots; trials for each slot
SLOTS_OF_A_CLIENT = 64  # `tuner.driver.ray_tune`
MOST_OVERHEAD, MOST_KILOBYTES = 0.05, 50.0  # share of the time; of the driver, per trial
LEAST_REPORTS, MOST_SECONDS, MOST_MEGABYTES = 300.0, 0.3, 20.0  # a second; of a client, per slot


# one search -------------------------------------------------------------------------------------


class Meter(threading.Thread):
    """Reads the driver's memory and the processor time of all, twice a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.board: Any = None
        self.began = self.ended = 0.0
        self.samples: list[dict[str, float]] = []
        self._cpu: dict[int, float] = {}  # process → processor seconds when last seen
        self._clients: set[int] = set()

    def run(self) -> None:
        """Sample for as long as the search trains."""
        while not self.ended:
            self.sample()
            time.sleep(PERIOD_SECONDS)

    def sample(self) -> None:
        """Record trials, memory and processor time."""
        me = os.getpid()
        for pid in descendants(me):
            with contextlib.suppress(OSError):  # it has just ended
                self._cpu[pid] = cpu_seconds(pid)
                if pid not in self._clients and kind_of(pid) == "client":
                    self._clients.add(pid)
        self.samples.append(
            {
                "seconds": time.monotonic() - self.began,
                "trials": float(len(self.board.ended)),
                "driver_bytes": float(pss_bytes([me])),
                "driver_cpu": self._cpu[me],
                "cpu": sum(self._cpu.values()),
                "processes": float(len(self._cpu)),
                "clients": float(len(self._clients)),
                "clients_cpu": sum(self._cpu[pid] for pid in self._clients),
                "clients_bytes": float(pss_bytes([*self._clients])),
            }
        )


def run_one(options: argparse.Namespace) -> int:
    """Run one search with stub workers in this process, and print its measurements."""
    from parts.overhead.stub import StubWorker

    from tuner.driver.search import search
    from tuner.driver.view import SilentView
    from tuner.home.home import Home
    from tuner.space_file.load import read_space
    from tuner.space_file.overrides import Override
    from tuner.workers import cluster

    meter = Meter()

    class View(SilentView):
        def begin(self, board: Any, title: str) -> None:
            meter.board, meter.began = board, time.monotonic()
            meter.start()

        def end(self) -> None:
            meter.sample()
            meter.ended = time.monotonic()

    def start_stubs(on: cluster.Devices, *_: Any, storage: str = "") -> list[Any]:
        import ray

        actor: Any = ray.remote(StubWorker).options(num_cpus=0, max_concurrency=10_000)
        return [actor.remote(options.seconds, on.slots) for _ in range(on.number)]

    cluster.start_workers = start_stubs  # the only part that is not real

    folder = Path(options.folder)
    (folder / "texts").mkdir()
    for number in range(10):
        lines = (f"line {i} of {i % 7} and {i % 13}\n" for i in range(number, 2_000))
        (folder / "texts" / f"{number}.txt").write_text("".join(lines), encoding="utf-8")
    values = {
        "data.files": folder / "texts", "budget.reports": options.reports,
        "search.trials": options.trials[0], "search.sampler": options.sampler,
        "engine.workers": options.workers, "engine.slots": options.slots[0] // options.workers,
    }  # fmt: skip
    space = read_space(SPACE, [Override.parse(f"{key}={v}") for key, v in values.items()])[0]
    result = search(space, home=Home.at(folder / "home"), view=View())
    assert len(result.trials) == options.trials[0]
    print(json.dumps({"wall": meter.ended - meter.began, "samples": meter.samples}))
    return 0


# several ----------------------------------------------------------------------------------------


def one_search(
    trials: int,
    reports: int,
    seconds: float,
    sampler: str,
    workers: int = WORKERS,
    slots: int = SLOTS,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Run one search in a process of its own.

    Returns:
        What it printed, and the first sample after which each slot had ended a trial.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", "--folder", folder, "--trials", str(trials)]
        command += ["--reports", str(reports), "--seconds", str(seconds), "--sampler", sampler]
        command += ["--workers", str(workers), "--slots", str(slots)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    results = json.loads(done.stdout.splitlines()[-1])
    samples = results["samples"]
    return results, next((s for s in samples[:-1] if slots <= s["trials"] < trials), samples[0])


def many_slots(slots: int, reports: int, trials: int, seconds: float) -> dict[str, float]:
    """Return what a search with many slots takes, for trials that report at once."""
    results, begun = one_search(trials, reports, seconds, "random", MANY_WORKERS, slots)
    last = results["samples"][-1]
    taken = (last["trials"] - begun["trials"]) * reports
    most = max(sample["clients_bytes"] for sample in results["samples"])  # they end before the last
    return {
        "slots": slots,
        "trials": trials,
        "start_seconds": begun["seconds"],
        "reports_per_second": taken / (last["seconds"] - begun["seconds"]),
        "driver_ms_per_report": 1e3 * (last["driver_cpu"] - begun["driver_cpu"]) / max(1.0, taken),
        "clients": int(last["clients"]),
        "client_seconds_per_slot": begun["clients_cpu"] / slots,
        "megabytes_per_slot": most / 1e6 / slots,
        "driver_megabytes": last["driver_bytes"] / 1e6,
    }


def measured(trials: int, reports: int, seconds: float, sampler: str) -> dict[str, Any]:
    """Run one search with few slots, and return its cost."""
    results, begun = one_search(trials, reports, seconds, sampler)
    samples = results["samples"]
    half = next(s for s in samples if s["trials"] >= (begun["trials"] + trials) / 2)
    last = samples[-1]
    ended, seconds_taken = trials - begun["trials"], last["seconds"] - begun["seconds"]
    return {
        "trials": trials,
        "reports": reports,
        "sampler": sampler,
        "stub_seconds": seconds,
        "wall_seconds": results["wall"],
        "start_seconds": begun["seconds"],
        "idle_ms_per_trial": 1e3 * (seconds_taken * SLOTS / ended - seconds),
        "cpu_ms_per_trial": _between(begun, last, "cpu"),
        "driver_ms_per_trial": _between(begun, last, "driver_cpu"),
        "driver_ms_first_half": _between(begun, half, "driver_cpu"),
        "driver_ms_second_half": _between(half, last, "driver_cpu"),
        "processes_started": last["processes"] - begun["processes"],
        "driver_megabytes": last["driver_bytes"] / 1e6,
        "driver_kilobytes_per_trial": _growth(samples) / 1e3,
    }


def _between(one: dict[str, float], other: dict[str, float], what: str) -> float:
    """Return the processor milliseconds per trial between two samples."""
    return 1e3 * (other[what] - one[what]) / max(1.0, other["trials"] - one["trials"])


def _growth(samples: list[dict[str, float]]) -> float:
    """Return the driver's bytes per trial: the slope after the first tenth, when all is loaded."""
    last = samples[-1]["trials"]
    some = [s for s in samples if s["trials"] >= last / 10]
    ended = np.array([s["trials"] for s in some])
    if len(set(ended.tolist())) < 2:
        return 0.0
    return float(np.polyfit(ended, [s["driver_bytes"] for s in some], 1)[0])


def summary(runs: list[dict[str, Any]], one_report: dict[str, Any], cores: int) -> dict[str, Any]:
    """Return the quantities of the goals, for the largest search."""
    largest, same = runs[-1], runs[0]
    per_report = (same["cpu_ms_per_trial"] - one_report["cpu_ms_per_trial"]) / (same["reports"] - 1)
    idle = largest["idle_ms_per_trial"] / 1e3 / TRIAL_SECONDS
    # the slots share the cores, so that a trial of 20 s has so many seconds of a core
    cpu = largest["cpu_ms_per_trial"] / 1e3 / (TRIAL_SECONDS * cores / SLOTS)
    return {
        "cpu_ms_per_report": per_report,
        "idle_share": idle,
        "cpu_share": cpu,
        "overhead_share": idle + cpu,
        "driver_kilobytes_per_trial": largest["driver_kilobytes_per_trial"],
    }


def result_of(numbers: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Return the result in the format of `parts.measuring`.

    Args:
        numbers: runs, one_report and many_slots, as `measured` and `many_slots` return them.
        about: `measuring.about`.
    """
    runs, many = numbers["runs"], numbers["many_slots"]
    whole = summary(runs, numbers["one_report"], about["cores"])
    rows = [
        [f"{run['trials']:,} of {run['reports']}, {run['sampler']}, {run['stub_seconds']:g} s"]
        + [run[name] for name in COSTS]
        for run in [*runs, numbers["one_report"]]
    ]
    slots = [[f"{run['slots']}", *(run[name] for name in MANY)] for run in many]
    largest, least = many[-1], f"{many[-1]['slots']} slots"
    goals = [
        goal("overhead, share of the time", whole["overhead_share"], most=MOST_OVERHEAD),
        goal("driver kB per trial", whole["driver_kilobytes_per_trial"], most=MOST_KILOBYTES),
        goal(f"{least}: reports a second", largest["reports_per_second"], least=LEAST_REPORTS),
        goal(f"{least}: client s per slot", largest["client_seconds_per_slot"], most=MOST_SECONDS),
        goal(f"{least}: MB per slot", largest["megabytes_per_slot"], most=MOST_MEGABYTES),
    ]
    shares = [
        [name.replace("_", " "), f"{100 * value:.2f} %" if name.endswith("share") else value]
        for name, value in whole.items()
    ]
    return {
        "bench": "overhead",
        "about": about,
        "tables": [
            {"title": "Trials of some reports", "columns": [WHAT, *COSTS.values()], "rows": rows},
            {"title": "The largest, for trials of 20 s", "columns": ["", ""], "rows": shares},
            {"title": "Many slots", "columns": ["slots", *MANY.values()], "rows": slots},
        ],
        "goals": [] if about["rehearsal"] else goals,
        "notes": [on_paper(largest)],
        "numbers": numbers,
    }  # fmt: skip


def on_paper(largest: dict[str, float], slots: int = 1024) -> str:
    """Return what a search with more slots than were measured would take, and from what."""
    clients = -(-slots // SLOTS_OF_A_CLIENT)
    seconds = largest["client_seconds_per_slot"] * largest["slots"] / largest["clients"]
    megabytes = largest["megabytes_per_slot"] * largest["slots"] / largest["clients"]
    per_second = 1e3 / largest["driver_ms_per_report"]
    return (
        f"On paper, {slots:,} slots: {clients} clients of {seconds:.1f} s and {megabytes:.0f} MB "
        f"each, as measured with {largest['slots']:.0f} slots, are {clients * seconds:.0f} s of a "
        f"core and {clients * megabytes / 1e3:.1f} GB; the driver, one thread with "
        f"{largest['driver_ms_per_report']:.1f} ms a report, takes {per_second:,.0f} reports/s, so "
        f"each slot may report every {slots / per_second:.1f} s."
    )


def main() -> int:
    """Measure searches of several sizes, and print their cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--reports", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.5, help="sleep of a trial")
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--slots", type=int, nargs="+", default=[16, 64, 256])
    add_options(parser, "a dozen short trials", has_picture=False)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=WORKERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return run_one(options)
    if options.quick:
        options.trials, options.seconds, options.slots = [12], 0.2, [8]
    measure = partial(measured, seconds=options.seconds, sampler=options.sampler)
    runs = [measure(trials, options.reports) for trials in sorted(options.trials)]
    numbers = {
        "runs": runs,
        "one_report": measure(runs[0]["trials"], 1),
        "many_slots": [
            many_slots(slots, options.reports, MANY_TRIALS * slots, MANY_SECONDS)
            for slots in sorted(options.slots)
        ],
    }
    where = about(["ray", "optuna", "mlflow"], rehearsal=options.quick)
    finish(result_of(numbers, where), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
