"""A search on a Ray cluster of three nodes, what faults of the nodes cost it, and its bits.

    python bench/cluster.py                        all scenarios, some 15 minutes; needs root
    python bench/cluster.py --only killed drained  some of them
    python bench/cluster.py --tokens 120_000       shorter trials
    python bench/cluster.py --quick                three short trials on two nodes, as a test
    python bench/cluster.py --out FILE.json        also write the numbers; others stay

Each node is a network, mount, host name and process namespace of this machine with Ray started by
`ray start` (parts/cluster/namespaces.py), so a cable can be pulled and a folder be missing. They
share the cores, a token, and the folder of the home. Health checks of Ray notice a lost node within
6 s; with Ray's own settings it takes up to a minute. With --quick, a machine that cannot make
namespaces uses nodes that are processes of Ray's own test cluster.

*Equal*: trials whose specification, reports and kept weights have the bits of the same search on
this machine without a cluster. *Noticed*: seconds from the fault to the driver's first message.
*Next report*: seconds from the fault to the next report of the trial that waited longest for it,
beside the usual time between two reports of a trial.

*killed*: all processes of a node end at once; another node has a free core.
*replaced*: the same, but no core is free: the trials wait in other workers for a slot, until the
node is started again.
*partitioned*: the cable of a node is pulled, and put back after the search went on elsewhere.
*drained*: a node is announced as preempted (`ray drain-node`), and killed at its deadline.
*foreign*, *unshared*: a node has other code of tuner, or does not see the home.
*foreign_later*: such a node joins a search; a good one follows.
*elastic*: the search begins on one node, two join, and leave again.
*overhead*: a node with two cores beside two nodes with a core each, by turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from parts.cluster.namespaces import Network, Node, why_not
from parts.cluster.searches import (
    RunningSearch,
    Trained,
    command,
    interval,
    next_report_seconds,
    reports,
    tokens_per_second,
    write_inputs,
)
from parts.processes import ProcessTimes

ROOT = Path(__file__).resolve().parents[1]
TRIALS, TOKENS = 6, 200_000
QUICK_TRIALS, QUICK_TOKENS = 3, 6_000
DEADLINE_SECONDS = 5
ROUNDS = 2
LOST = "died and restarts", "did not answer, was killed"  # messages of the driver


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of all processes, which run this working tree's code."""
    drop = ("RAY_", "MLFLOW", "TUNER", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
    user = folder / "user"
    (user / ".ray").mkdir(parents=True)
    (user / ".ray" / "auth_token").write_text(secrets.token_hex(32))
    return {
        **kept, "HOME": str(user), "PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0",
        "COLUMNS": "160",
    }  # fmt: skip


class Bench:
    """Runs the scenarios on the nodes of a network.

    Args:
        network: the network.
        tokens: budget of a trial.
    """

    def __init__(self, network: Network, tokens: int) -> None:
        self.network, self.tokens = network, tokens
        self.home = network.folder / "runs"
        self.local = Trained({}, {})
        self._count = 0

    def search_here(self) -> None:
        """Run the search without a cluster: what the others are compared with."""
        words = command("here", TRIALS, self.tokens, 2)
        folder, variables = self.network.folder, self.network.environment
        done = subprocess.run(
            words, cwd=folder, env=variables, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        search = self.home / "searches" / "here"
        self.local = Trained.of(RunningSearch.events_of(search))

    def start(self, kind: str, workers: int) -> RunningSearch:
        """Start the search on the head of the cluster."""
        self._count += 1
        name = f"{kind}-{self._count}"
        words = command(name, TRIALS, self.tokens, workers, self.network.address)
        process = self.network.nodes[1].popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        return RunningSearch(process, self.home, name)

    def finish(self, search: RunningSearch) -> dict[str, Any]:
        """Wait for the end of a search; return how many of its trials are equal."""
        status = search.finish()
        if status:
            raise RuntimeError("\n".join(line for _, line in search.lines))
        trained = Trained.of(search.events)
        return {"trials": len(trained.trials), "equal": trained.num_equal(self.local)}

    def nodes(self, *cpus: int) -> list[Node]:
        """Have exactly these nodes up, each with so many cores, in a new cluster."""
        self.network.stop()
        return [self.network.start(n, count) for n, count in enumerate(cpus, 1)]

    def faulty(
        self, kind: str, workers: int, fault: Callable[[Node, RunningSearch], float]
    ) -> tuple[RunningSearch, dict[str, Any]]:
        """Run a search on three nodes, and let a node have a fault; return what it cost.

        Args:
            kind: name of the scenario.
            workers: number of workers.
            fault: function from node and search to the Unix time of the fault.
        """
        nodes = self.nodes(1, 1, 1)
        search = self.start(kind, workers)
        search.reports(3 * workers)
        victim = next(node for node in nodes[1:] if node.has_worker)
        at = fault(victim, search)
        equal = self.finish(search)
        times = [t for t, line in search.lines if any(text in line for text in LOST)]
        if not times:
            raise RuntimeError(f"the search ended before it noticed the fault: {search.lines[-5:]}")
        return search, {
            **equal,
            "noticed_seconds": times[0] - at,
            "next_report_seconds": next_report_seconds(search.events, at),
            "report_interval_seconds": interval(search.events),
        }

    # scenarios ------------------------------------------------------------------------------

    def undisturbed(self) -> dict[str, Any]:
        """Three nodes, a worker on each."""
        self.nodes(1, 1, 1)
        return self.finish(self.start("undisturbed", 3))

    def killed(self) -> dict[str, Any]:
        """A node is killed; another one has a free core."""

        def kill(victim: Node, search: RunningSearch) -> float:
            at = time.time()
            victim.kill()
            return at

        return self.faulty("killed", 2, kill)[1]

    def replaced(self) -> dict[str, Any]:
        """A node is killed; it is started again when its trials wait in other workers."""
        moved: list[float] = []

        def kill(victim: Node, search: RunningSearch) -> float:
            at = time.time()
            victim.kill()
            moved.append(search.line("is missing; its trials go on in other workers") - at)
            self.network.start(victim.number)
            search.line("has restarted")
            return at

        return {**self.faulty("replaced", 3, kill)[1], "moved_seconds": moved[0]}

    def partitioned(self) -> dict[str, Any]:
        """A node's cable is pulled; it is put back when its trials train elsewhere."""
        ended: list[float] = []

        def cut(victim: Node, search: RunningSearch) -> float:
            at = time.time()
            victim.cut()
            search.line("has restarted")
            back = time.time()
            assert victim.has_worker, "it trains on, and hears nothing"
            victim.join()
            while victim.has_worker and time.time() < back + 120:
                time.sleep(0.2)
            ended.append(time.time() - back)
            return at

        return {**self.faulty("partitioned", 2, cut)[1], "old_worker_ends_seconds": ended[0]}

    def drained(self) -> dict[str, Any]:
        """A node is drained, as the autoscaler does before a preemption, and then killed."""

        def drain(victim: Node, search: RunningSearch) -> float:
            done = self.network.nodes[1].run(
                [
                    sys.executable, "-m", "ray.scripts.scripts", "drain-node",
                    "--address", self.network.address, "--node-id", victim.ray_id,
                    "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "bench",
                    "--deadline-remaining-seconds", str(DEADLINE_SECONDS),
                ],
                {"RAY_AUTH_MODE": "token"},
            )  # fmt: skip
            if done.returncode:
                raise RuntimeError(done.stderr)
            time.sleep(DEADLINE_SECONDS)
            at = time.time()
            victim.kill()
            return at

        return self.faulty("drained", 2, drain)[1]

    def foreign(self) -> dict[str, Any]:
        """A node has other code of tuner when a search begins."""
        self.nodes(1)
        self.network.start(2, PYTHONPATH=str(self._other_code()))
        return self._refused("foreign")

    def unshared(self) -> dict[str, Any]:
        """A node has a folder of its own at the path of the home."""
        node = self.nodes(1, 1)[1]
        node.run(["mount", "-t", "tmpfs", "tmpfs", str(self.home)])
        return self._refused("unshared")

    def foreign_later(self) -> dict[str, Any]:
        """A node with other code joins while a search runs; then a good one does."""
        self.nodes(1)
        search = self.start("foreign_later", 2)
        search.reports(2)
        node = self.network.start(2, PYTHONPATH=str(self._other_code()))
        search.line("is not used")
        node.kill()
        self.network.start(3)
        until = time.time() + 120
        while not self.network.nodes[3].has_worker and time.time() < until:
            time.sleep(0.2)
        equal = self.finish(search)
        (text,) = {line for _, line in search.lines if "is not used" in line}
        return {**equal, "message": text}

    def elastic(self) -> dict[str, Any]:
        """The search begins on one node; two others join it, and are killed."""
        self.nodes(1)
        search = self.start("elastic", 3)
        marks = []

        def phase(number: int) -> None:
            """Wait for some reports of a phase that begins now."""
            begin = time.time()
            search.reports(len(reports(search.events)) + number)
            marks.append((begin, time.time()))

        search.reports(1)
        phase(10)
        for number in (2, 3):
            self.network.start(number)
        until = time.time() + 120
        while not all(self.network.nodes[n].has_worker for n in (2, 3)) and time.time() < until:
            time.sleep(0.2)
        search.reports(len(reports(search.events)) + 3)
        phase(30)
        for number in (2, 3):
            self.network.nodes[number].kill()
        phase(10)
        equal = self.finish(search)
        events = search.events
        rates = [tokens_per_second(events, *mark) for mark in marks]
        return {**equal, "tokens_per_second": rates, "nodes": [1, 3, 1], "cores": os.cpu_count()}

    def overhead(self) -> dict[str, Any]:
        """One node with two cores beside two nodes with one each."""
        sides: dict[str, list[dict[str, float]]] = {"one node": [], "two nodes": []}
        for _ in range(ROUNDS):
            for side, cpus in (("one node", (2,)), ("two nodes", (1, 1))):
                self.nodes(*cpus)
                times = ProcessTimes(os.getpid())
                time.sleep(1.0)
                began = time.time()
                search = self.start("overhead", 2)
                self.finish(search)
                times.stop()
                before, after = times.until(began), times.until()
                spent = {kind: after[kind] - before.get(kind, 0.0) for kind in after}
                training = spent.pop("worker")
                spent.pop("driver")  # this program
                events = search.events
                tokens = self.tokens * TRIALS / 1e6
                first, last = (reports(events)[n].time_ms / 1000 for n in (0, -1))
                sides[side].append(
                    {
                        "wall_seconds": (last - first) / tokens,
                        "worker_cpu_seconds": training / tokens,
                        "other_cpu_seconds": sum(spent.values()) / tokens,
                    }
                )
        ratios = {
            name: statistics.median(
                two[name] / one[name]
                for one, two in zip(sides["one node"], sides["two nodes"], strict=True)
            )
            for name in sides["one node"][0]
        }
        return {"per_million_tokens": sides, "two_beside_one": ratios}

    def _refused(self, kind: str) -> dict[str, Any]:
        search = self.start(kind, 2)
        status = search.finish()
        message = search.lines[-1][1]
        if status != 2:
            raise RuntimeError(f"exit status {status}: {message}")
        return {"status": status, "message": message, "seconds": time.time() - search.began}

    def _other_code(self) -> Path:
        """Return a folder with a copy of tuner of which one file differs."""
        folder = self.network.folder / "other"
        if not folder.exists():
            for package in ("model", "tuner"):
                shutil.copytree(ROOT / package, folder / package)
            with (folder / "tuner" / "names.py").open("a") as file:
                file.write("# another version\n")
        return folder


SCENARIOS = (
    "undisturbed", "killed", "replaced", "partitioned", "drained", "foreign", "unshared",
    "foreign_later", "elastic", "overhead",
)  # fmt: skip


@contextlib.contextmanager
def plain_cluster(folder: Path, variables: dict[str, str]) -> Iterator[str]:
    """Run two nodes as processes, by Ray's cluster for tests; yield its address."""
    code = (
        "import sys, time\n"
        "from ray.cluster_utils import Cluster\n"
        "cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1})\n"
        "cluster.add_node(num_cpus=1)\n"
        "print(cluster.address, flush=True)\n"
        "sys.stdin.read()\n"
        "cluster.shutdown()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=variables, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            lines = (line.strip() for line in process.stdout)
            yield next(line for line in lines if line.rpartition(":")[2].isdigit())
        finally:
            process.communicate()


def quick(folder: Path, variables: dict[str, str]) -> dict[str, Any]:
    """Compare a short search on two nodes with one on this machine."""
    reason = why_not()
    words = [command(name, QUICK_TRIALS, QUICK_TOKENS, 2) for name in ("here", "there")]
    runs = [words[0]]
    with contextlib.ExitStack() as stack:
        if reason:
            print(f"{reason}; the nodes are processes of Ray's test cluster instead")
            address = stack.enter_context(plain_cluster(folder, variables))
            runs.append([*words[1][:-1], address])
        else:
            network = stack.enter_context(Network(folder, variables))
            head, _ = network.start(1), network.start(2)
            runs.append(head.command([*words[1][:-1], network.address]))
        for run in runs:
            done = subprocess.run(
                run, cwd=folder, env=variables, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RuntimeError(done.stderr)
    home = folder / "runs" / "searches"
    here, there = (Trained.of(RunningSearch.events_of(home / name)) for name in ("here", "there"))
    numbers = {"trials": len(there.trials), "equal": there.num_equal(here)}
    return {"nodes": "processes" if reason else "namespaces", "undisturbed": numbers}


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| scenario | equal | noticed | next report | usual interval | |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for name, values in results.items():
        if not isinstance(values, dict):
            continue
        equal = f"{values['equal']} of {values['trials']}" if "equal" in values else ""
        seconds = [
            f"{values[key]:.1f} s" if key in values else ""
            for key in ("noticed_seconds", "next_report_seconds", "report_interval_seconds")
        ]
        more = {
            key: value for key, value in values.items()
            if key in {"moved_seconds", "old_worker_ends_seconds", "message", "tokens_per_second",
                       "two_beside_one"}
        }  # fmt: skip
        lines.append(f"| {name} | {equal} | {' | '.join(seconds)} | {json.dumps(more)} |")
    return "\n".join(lines)


def write(results: dict[str, Any], out: Path | None) -> None:
    """Write the numbers to a file, if there is one."""
    if out:
        out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Run the scenarios, print a table, and write the numbers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="budget of a trial")
    parser.add_argument("--quick", action="store_true", help="a short search on two nodes")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # the nodes end, too
    results: dict[str, Any] = {}
    if options.out and options.out.exists() and not options.quick:
        results = json.loads(options.out.read_text())
    # not in /tmp, which each node has for itself
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="tuner-cluster-") as temporary:
        folder = Path(temporary)
        write_inputs(folder)
        variables = environment(folder)
        if options.quick:
            results = quick(folder, variables)
        elif reason := why_not():
            print(f"{reason}; --quick needs none", file=sys.stderr)
            return 1
        else:
            with Network(folder, variables) as network:
                bench = Bench(network, options.tokens)
                bench.search_here()
                for name in options.only:
                    values = getattr(bench, name)()
                    load, date = os.getloadavg()[0], f"{datetime.now(UTC):%Y-%m-%d}"
                    results[name] = {**values, "tokens": options.tokens, "load": load, "date": date}
                    print(f"{name}: {json.dumps(results[name])}", file=sys.stderr, flush=True)
                    write(results, options.out)
    print(table(results))
    write(results, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
