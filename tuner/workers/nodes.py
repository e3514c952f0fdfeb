"""Nodes of a Ray cluster: what they have, and if they can train the trials of a search."""

from __future__ import annotations

import hashlib
import platform
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tuner.errors import StorageError, TunerError
from tuner.storage.storage import Storage

_PROBE_SECONDS = 60.0  # a node may have to start a process, which imports Ray
_WAIT_SECONDS = 0.05
_PACKAGES = ("tuner", "torch")


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

    return [
        Node(
            node["NodeID"],
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
            int(node["Resources"].get("CPU", 0)),
            int(node["Resources"].get("GPU", 0)),
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]


def check_nodes(
    folder: Path, *, storage: str | None = None, on_wait: Callable[[], None] = lambda: None
) -> None:
    """Check that all nodes with a CPU or GPU see a folder and have the versions of this process.

    Args:
        folder: folder of the states of all trials; it exists.
        storage: URL of `engine.storage`, which the nodes must reach instead; None without one.
        on_wait: function to call about twenty times a second meanwhile.

    Raises:
        TunerError: if a node cannot train trials, with its name and what to do.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in live_nodes() if node.cores or node.gpus]
    name = f".probe-{secrets.token_hex(8)}"
    written = [folder / f"{name}-{number}" for number in range(len(nodes))]
    (folder / name).touch()
    if storage is not None:
        Storage(storage).write(name, b"")
    probe: Any = ray.remote(_probe)
    try:
        answers = [
            probe.options(
                num_cpus=0,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
            ).remote(str(folder), name, path.name, storage)
            for node, path in zip(nodes, written, strict=True)
        ]
        waited = 0.0
        while (
            waited < _PROBE_SECONDS
            and ray.wait(answers, num_returns=len(answers), timeout=_WAIT_SECONDS)[1]
        ):
            waited += _WAIT_SECONDS
            on_wait()
        for node, answer, path in zip(nodes, answers, written, strict=True):
            _check_answer(node, answer, folder, path)
    finally:
        for path in (folder / name, *written):
            with suppress(OSError):
                path.unlink()
        if storage is not None:
            with suppress(StorageError):
                Storage(storage).delete(name)


def _check_answer(node: Node, answer: Any, folder: Path, written: Path) -> None:
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    try:
        found: dict[str, str] = ray.get(answer, timeout=0)
    except GetTimeoutError as error:
        raise TunerError(
            f"node {node.name} of the cluster did not answer within {_PROBE_SECONDS:.0f} seconds; "
            f"restart Ray on it, or remove it from the cluster"
        ) from error
    except (RayError, ImportError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise TunerError(
            f"node {node.name} of the cluster cannot run tuner ({reason}); install tuner "
            f"{metadata.version('tuner')} there, in the Python that runs Ray"
        ) from error
    if reason := found.pop("unreached", ""):
        raise TunerError(f"node {node.name} of the cluster cannot use engine.storage: {reason}")
    if not found.pop("sees", ""):
        raise TunerError(
            f"node {node.name} of the cluster does not see {folder}, where trials keep their "
            f"states; put the home on a file system that all nodes mount at the same path (--home)"
        )
    if reason := found.pop("unwritable", ""):
        raise TunerError(
            f"node {node.name} of the cluster cannot write to {folder}: {reason}; run Ray there as "
            f"the user who owns the home"
        )
    if "storage" not in found and not written.exists():
        raise TunerError(
            f"what node {node.name} of the cluster writes to {folder} is not seen here: it has "
            f"another file system at this path; mount the same one on all nodes"
        )
    for what, own in _versions().items():
        if found[what] != own:
            raise TunerError(
                f"node {node.name} of the cluster has {what} {found[what] or '(none)'}, and this "
                f"machine has {own}: trials would have other bits; install {what} {own} there"
            )


def _versions() -> dict[str, str]:
    """Return what decides the bits of a trial: versions, and a digest of tuner's own code."""
    versions = {"Python": platform.python_version(), "code of tuner": _code_digest()}
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
