"""Nodes of a Ray cluster: what they have, and if they can train the trials of a search."""

from __future__ import annotations

import hashlib
import math
import platform
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tuner.errors import StorageError, TunerError
from tuner.storage.storage import Storage

_PROBE_SECONDS = 60.0  # a node may have to start a process, which imports Ray
_WAIT_SECONDS = 0.05
_CLOCK_QUESTIONS = 5
_PACKAGES = ("tuner", "torch")
_CODE = "code of tuner"


@dataclass(frozen=True)
class Node:
    """A node that is up.

    Attributes:
        id: of Ray.
        name: host name, and address.
        cores: number of CPUs that Ray may use on it.
        gpus: number of its GPUs.
    """

    id: str
    name: str
    cores: int
    gpus: int


def live_nodes() -> list[Node]:
    """Return the nodes that are up, in the order in which Ray names them."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        Node(
            node["NodeID"],
            _name_of(node),
            int(node["Resources"].get("CPU", 0)),
            int(node["Resources"].get("GPU", 0)),
        )
        for node in nodes
        if node["Alive"]
    ]


def lost_nodes() -> dict[str, str]:
    """Return the names of the nodes that were in the cluster and are down, by id."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: _name_of(node) for node in nodes if not node["Alive"]}


def _name_of(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def waiting_text(address: str, device: str) -> str:
    """Say for what a search waits before its first worker is up.

    Args:
        address: address of the cluster.
        device: "cpu" or "cuda".
    """
    import ray

    what = "GPU" if device == "cuda" else "CPU"
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    if free.get(what, 0) >= 1:
        return f"waiting for a worker: the cluster at {address} starts one"
    return (
        f"waiting for a worker: the cluster at {address} has no free {what} (each worker needs one)"
    )


@dataclass(frozen=True)
class NodeState:
    """What was found on a node.

    Attributes:
        node: the node.
        problem: why it cannot train trials; empty if it can.
        seconds_ahead: what its clock is ahead of this machine's; NaN if it was not asked.
    """

    node: Node
    problem: str
    seconds_ahead: float = math.nan


def check_nodes(
    folder: Path, *, storage: str | None = None, on_wait: Callable[[], None] = lambda: None
) -> frozenset[str]:
    """Check that all nodes with a CPU or GPU see a folder and have the versions of this process.

    Args:
        folder: folder of the states of all trials; it exists.
        storage: URL of `engine.storage`, which the nodes must reach instead; None without one.
        on_wait: function to call about twenty times a second meanwhile.

    Returns:
        Ids of the nodes.

    Raises:
        TunerError: if a node cannot train trials, with its name and what to do.
    """
    states = look_at_nodes(folder, storage=storage, on_wait=on_wait)
    for state in states:
        if state.problem:
            raise TunerError(state.problem)
    return frozenset(state.node.id for state in states)


def look_at_nodes(
    folder: Path,
    *,
    storage: str | None = None,
    on_wait: Callable[[], None] = lambda: None,
    has_clocks: bool = False,
) -> list[NodeState]:
    """Look at all nodes with a CPU or GPU, by a process on each.

    Args:
        folder: as for `check_nodes`.
        storage: as for `check_nodes`.
        on_wait: as for `check_nodes`.
        has_clocks: True to ask for the time, too.
    """
    import ray

    nodes = [node for node in live_nodes() if node.cores or node.gpus]
    probes = [_Probe(node, folder, storage) for node in nodes]
    answers = [probe.answer for probe in probes]
    try:
        waited = 0.0
        while (
            waited < _PROBE_SECONDS
            and ray.wait(answers, num_returns=len(answers), timeout=_WAIT_SECONDS)[1]
        ):
            waited += _WAIT_SECONDS
            on_wait()
        return [probe.state(has_clock=has_clocks) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class NodeChecks:
    """Checks nodes that join while a search runs, without waiting for their answers.

    Args:
        folder: folder of the states of all trials; it exists.
        checked: ids of nodes that need no check.
        storage: as for `check_nodes`.
    """

    def __init__(
        self, folder: Path, checked: Collection[str] = (), storage: str | None = None
    ) -> None:
        self._folder, self._storage = folder, storage
        self._lacks = dict.fromkeys(checked, "")  # node → what it lacks
        self._probes: dict[str, _Probe] = {}

    def lack(self, node_id: str) -> str | None:
        """Return why a node cannot train trials; empty if it can, None if that is not known yet."""
        import ray

        if node_id in self._lacks:
            return self._lacks[node_id]
        if node_id not in self._probes:
            if node := next((node for node in live_nodes() if node.id == node_id), None):
                self._probes[node_id] = _Probe(node, self._folder, self._storage)
            return None
        probe = self._probes[node_id]
        if not ray.wait([probe.answer], timeout=0)[0]:
            return None
        self._lacks[node_id] = probe.problem()
        probe.close()
        return self._lacks[node_id]


class _Probe:
    """A look at a node by a process on it.

    Args:
        node: the node.
        folder: folder that it must see; the probe has two files there until `close`.
        storage: URL of the storage that it must reach instead; None without one.

    Attributes:
        node: the node.
        answer: Ray's reference to what the process found.
    """

    def __init__(self, node: Node, folder: Path, storage: str | None) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.node, self._folder = node, folder
        self._storage = None if storage is None else Storage(storage)
        self._seen = folder / f".probe-{secrets.token_hex(8)}"
        self._written = folder / f"{self._seen.name}-written"
        self._seen.touch()
        if self._storage is not None:
            self._storage.write(self._seen.name, b"")
        there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        self._options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
        probe: Any = ray.remote(_probe)
        self.answer = probe.options(**self._options).remote(
            str(folder), self._seen.name, self._written.name, storage
        )

    def state(self, *, has_clock: bool) -> NodeState:
        """Return what is wrong with the node, or how far its clock is ahead."""
        problem = self.problem()
        asks = has_clock and not problem
        return NodeState(self.node, problem, self._seconds_ahead() if asks else math.nan)

    def problem(self) -> str:
        """Return why the node cannot train trials, by an answer or none; empty if it can."""
        return _problem_of(self.node, self.answer, self._folder, self._written)

    def _seconds_ahead(self) -> float:
        """Return what the clock of the node is ahead, as NTP does: the quickest of some answers."""
        import ray

        ask: Any = ray.remote(_time).options(**self._options)
        answers: list[tuple[float, float]] = []
        for _ in range(_CLOCK_QUESTIONS):
            before = time.time()
            there = ray.get(ask.remote(), timeout=_PROBE_SECONDS)
            after = time.time()
            answers.append((after - before, there - (before + after) / 2))
        return min(answers)[1]

    def close(self) -> None:
        """Remove the files."""
        for path in (self._seen, self._written):
            with suppress(OSError):
                path.unlink()
        if self._storage is not None:
            with suppress(StorageError):
                self._storage.delete(self._seen.name)


def _problem_of(node: Node, answer: Any, folder: Path, written: Path) -> str:
    """Return why a node cannot train trials, by its answer; empty if it can."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    name = f"node {node.name} of the cluster"
    try:
        found: dict[str, str] = ray.get(answer, timeout=0)
    except GetTimeoutError:
        return (
            f"{name} did not answer within {_PROBE_SECONDS:.0f} seconds; restart Ray on it, or "
            f"remove it from the cluster"
        )
    except (RayError, ImportError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        return (
            f"{name} cannot run tuner ({reason}); install tuner {metadata.version('tuner')} there, "
            f"in the Python that runs Ray"
        )
    return next(_lacks_of(name, found, folder, written), "")


def _lacks_of(name: str, found: dict[str, str], folder: Path, written: Path) -> Iterator[str]:
    """Yield what a node lacks that has answered."""
    if reason := found.get("unreached"):
        yield f"{name} cannot use engine.storage: {reason}"
    if not found["sees"]:
        yield (
            f"{name} does not see {folder}, where trials keep their states; put the home on a file "
            f"system that all nodes mount at the same path (--home)"
        )
    if reason := found["unwritable"]:
        yield (
            f"{name} cannot write to {folder}: {reason}; run Ray there as the user who owns the "
            f"home"
        )
    if "storage" not in found and not written.exists():
        yield (
            f"what {name} writes to {folder} is not seen here: it has another file system at this "
            f"path; mount the same one on all nodes"
        )
    for what, own in _versions().items():
        if found[what] != own:
            fix = f"install {what} {own}" if what != _CODE else "install this machine's tuner"
            yield (
                f"{name} has {what} {found[what] or '(none)'}, and this machine has {own}: trials "
                f"would have other bits; {fix} there"
            )


def _versions() -> dict[str, str]:
    """Return what decides the bits of a trial: versions, and a digest of tuner's own code."""
    versions = {"Python": platform.python_version(), _CODE: _code_digest()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = ""
    return versions


def _code_digest() -> str:
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for folder in (package.parent / "model", package):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(package.parent).as_posix().encode() + b"\0")
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _probe(folder: str, seen: str, written: str, storage: str | None) -> dict[str, str]:
    """Look at a folder or storage and at the versions of this process; runs on a node."""
    found = {**_versions(), "sees": "", "unwritable": ""}
    if storage is not None:
        found |= {"sees": "yes", "storage": storage, "unreached": _storage_problem(storage, seen)}
    elif Path(folder, seen).exists():
        found["sees"] = "yes"
        try:
            Path(folder, written).touch()
        except OSError as error:
            found["unwritable"] = error.strerror or str(error)
    return found


def _time() -> float:
    """Return the time; runs on a node."""
    return time.time()


def _storage_problem(url: str, seen: str) -> str:
    """Return why this node cannot use a storage; empty if it can."""
    storage = Storage(url)
    try:
        storage.check()
        storage.read(seen)
    except FileNotFoundError:
        return f"{url} is another place there than here; use a URL that means the same everywhere"
    except StorageError as error:
        return str(error)
    return ""
