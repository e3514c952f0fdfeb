"""Cost of a search beside training: its trials sleep for a known time instead of training.

    python bench/overhead.py                           100 and 1,000 trials of ten reports
    python bench/overhead.py --trials 100 1000 10000   and ten thousand, most of an hour
    python bench/overhead.py --slots 16 64 256         and so many slots (the default)
    python bench/overhead.py --quick                   a dozen short ones, as a test of the bench
    python bench/overhead.py --out FILE.json           also write the numbers

Ray Tune, the searcher, the journal and the record in SQLite are those of `tuner search`; only the
workers are stubs (parts/overhead/stub.py). Each search runs in a process of its own. Linux only.

*Idle*: time in which a slot waits, beyond the sleep of its trials. *CPU*: processor time of all
processes, Ray's included. Both are counted from the moment when each slot has ended a trial,
because Ray starts its processes before that, once in a search. The cost of a report is a ninth of
the difference between trials of ten reports and of one. *Processes started* counts those that Ray
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
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from parts.memory import descendants, pss_bytes
from parts.overhead.space import SPACE
from parts.processes import cpu_seconds, kind_of

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "bench" / "overhead.md"
TRIAL_SECONDS = 20.0  # duration of the trials of the goal
PERIOD_SECONDS = 0.5
WORKERS, SLOTS = 2, 4  # two slots each, so that a worker's trials cross
MANY_WORKERS, MANY_SECONDS, MANY_TRIALS = 4, 0.2, 8  # of many slots; trials for each slot
SLOTS_OF_A_CLIENT = 64  # `tuner.driver.ray_tune`
GOALS = {"overhead_share": 0.05, "driver_kilobytes_per_trial": 50.0}
LEAST = {"reports_per_second": 300.0}
MOST = {"client_seconds_per_slot": 0.3, "megabytes_per_slot": 20.0}


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
    from tuner.home import Home
    from tuner.space_file.load import load_space
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
    (folder / "space.yaml").write_text(
        SPACE.format(
            texts=folder / "texts",
            trials=options.trials[0],
            sampler=options.sampler,
            reports=options.reports,
            workers=options.workers,
            slots=options.slots[0] // options.workers,
        ),
        encoding="utf-8",
    )
    space = load_space(folder / "space.yaml")
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
    return results, next((s for s in samples[:-1] if s["trials"] >= slots), samples[0])


def many_slots(slots: int, reports: int, trials: int, seconds: float) -> dict[str, float]:
    """Return what a search with many slots takes, for trials that report at once."""
    results, begun = one_search(trials, reports, seconds, "random", MANY_WORKERS, slots)
    last = results["samples"][-1]
    taken = (last["trials"] - begun["trials"]) * reports
    most = max(sample["clients_bytes"] for sample in results["samples"])  # they end before the last
    return {
        "slots": float(slots),
        "trials": float(trials),
        "start_seconds": begun["seconds"],
        "reports_per_second": taken / (last["seconds"] - begun["seconds"]),
        "driver_ms_per_report": 1e3 * (last["driver_cpu"] - begun["driver_cpu"]) / max(1.0, taken),
        "clients": last["clients"],
        "client_seconds_per_slot": begun["clients_cpu"] / slots,
        "megabytes_per_slot": most / 1e6 / slots,
        "driver_bytes": last["driver_bytes"],
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
        "driver_bytes": last["driver_bytes"],
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


def page(results: dict[str, Any]) -> str:
    """Return the numbers as Markdown."""
    names = [name for name in results["runs"][0] if name not in {"sampler", "trials", "reports"}]
    lines = [
        "# What a search costs beside training",
        "",
        f"Made by `{results['command']}` on {results['date']} ({results['machine']}).",
        "",
        *"\n\n".join((__doc__ or "").split("\n\n")[-2:]).splitlines(),
        "",
        "| trials | reports | sampler |" + "".join(f" {_spelled(n)} |" for n in names),
        "|---:|---:|---|" + "---:|" * len(names),
    ]
    for run in [*results["runs"], results["one_report"]]:
        cells = "".join(f" {_shown(n, run[n])} |" for n in names)
        lines.append(f"| {run['trials']:,} | {run['reports']} | {run['sampler']} |{cells}")
    lines += ["", "Of the largest search, for trials of 20 s:", ""]
    lines += [f"- {_spelled(name)}: {_shown(name, v)}" for name, v in results["summary"].items()]
    lines += ["", "Goals:", ""]
    for name, most in GOALS.items():
        met = results["summary"][name] < most
        wanted = f"{_spelled(name)} below {_shown(name, most)}"
        lines.append(f"- {'met' if met else '**missed**'}: {wanted}")
    many = results["many_slots"]
    lines += ["", "## Many slots", "", "|" + "".join(f" {_spelled(n)} |" for n in many[0])]
    lines += ["|" + "---:|" * len(many[0])]
    lines += ["|" + "".join(f" {_shown(n, v)} |" for n, v in run.items()) for run in many]
    lines += ["", f"Goals, with {many[-1]['slots']:.0f} slots:", ""]
    for name, limit in (LEAST | MOST).items():
        value = many[-1][name]
        met = value >= limit if name in LEAST else value <= limit
        wanted = f"{_spelled(name)} at {'least' if name in LEAST else 'most'} {limit:g}"
        lines.append(f"- {'met' if met else '**missed**'}: {wanted}, measured {value:.3g}")
    return "\n".join([*lines, "", *on_paper(many[-1]), ""])


def on_paper(largest: dict[str, float], slots: int = 1024) -> list[str]:
    """Return what a search with more slots than were measured would take, and from what."""
    clients = -(-slots // SLOTS_OF_A_CLIENT)
    seconds = largest["client_seconds_per_slot"] * largest["slots"] / largest["clients"]
    megabytes = largest["megabytes_per_slot"] * largest["slots"] / largest["clients"]
    per_second = 1e3 / largest["driver_ms_per_report"]
    return [
        f"On paper, {slots:,} slots: {clients} clients of {seconds:.1f} s and {megabytes:.0f} MB "
        f"each, as measured with {largest['slots']:.0f} slots, are {clients * seconds:.0f} s of a "
        f"core and {clients * megabytes / 1e3:.1f} GB; the driver, one thread with "
        f"{largest['driver_ms_per_report']:.1f} ms a report, takes {per_second:,.0f} reports/s, so "
        f"each slot may report every {slots / per_second:.1f} s.",
    ]


def _spelled(name: str) -> str:
    return name.replace("_", " ").replace("kilobytes", "kB").replace("driver bytes", "driver MB")


def _shown(name: str, value: float) -> str:
    if name.endswith("share"):
        return f"{100 * value:.2f} %"
    if name in {"slots", "trials", "clients"}:
        return f"{value:,.0f}"
    if name in MOST:
        return f"{value:.3f}"
    return f"{value / 1e6:,.0f}" if name.endswith("bytes") else f"{value:,.1f}"


def main() -> int:
    """Measure searches of several sizes, and print their cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--reports", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.5, help="sleep of a trial")
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--slots", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--quick", action="store_true", help="a dozen short trials")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--page", type=Path, help=f"write {PAGE.relative_to(ROOT)}, or another")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=WORKERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return run_one(options)
    if options.quick:
        options.trials, options.seconds, options.slots = [12], 0.2, [8]
    cores = len(os.sched_getaffinity(0))
    measure = partial(measured, seconds=options.seconds, sampler=options.sampler)
    runs = [measure(trials, options.reports) for trials in sorted(options.trials)]
    one_report = measure(runs[0]["trials"], 1)
    many = [
        many_slots(slots, options.reports, MANY_TRIALS * slots, MANY_SECONDS)
        for slots in sorted(options.slots)
    ]
    versions = ", ".join(f"{n} {metadata.version(n)}" for n in ("ray", "optuna", "mlflow"))
    results = {
        "command": f"python bench/overhead.py --trials {' '.join(map(str, options.trials))} "
        f"--seconds {options.seconds:g}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{cores} cores, load {os.getloadavg()[2]:.2f}; {versions}",
        "runs": runs,
        "one_report": one_report,
        "many_slots": many,
        "summary": summary(runs, one_report, cores),
    }
    text = page(results)
    print(text)
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if options.page:
        options.page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
