"""`tuner doctor`: check that everything works that a search needs, and what protects it."""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from os import environ
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.text import Text

from model.sources.registry import source_bytes
from model.spec.data import DataConfig
from tuner.commands.output import consoles, home_of, print_json
from tuner.errors import TunerError
from tuner.formatting import counted
from tuner.home import Home
from tuner.housekeeping.weaknesses import find_weaknesses
from tuner.tracking.record import Record
from tuner.tracking.store import DOCTOR_HINT

_LEAST_FREE_BYTES = 2e9
_MOST_SKEW_SECONDS = 5.0
_PASSED, _WARNED, _FAILED = ("✓ ", "green"), ("! ", "yellow"), ("✗ ", "bold red")

Finding = tuple[bool, str]  # passed, text


def run_doctor(options: argparse.Namespace) -> int:
    """Check the installation; what weakens the protection of the home is a warning."""
    results, _ = consoles(options)
    home = home_of(options)
    if not options.cluster and (options.address or options.storage):
        options.refuse("--address and --storage need --cluster")
    if options.cluster:
        return _examine_cluster(options, results, home)
    findings = run_checks(results, home)
    warnings = find_weaknesses(home)
    for text in warnings:
        _print(results, _WARNED, "trust", text)
    print_json(options, {**{name: text for name, (_, text) in findings.items()}, "trust": warnings})
    return 0 if all(passed for passed, _ in findings.values()) else 1


def run_checks(console: Console, home: Home) -> dict[str, Finding]:
    """Run every check and print its finding; return the findings by name."""
    findings: dict[str, Finding] = {}
    for name, check in CHECKS.items():
        try:
            findings[name] = True, check(home)
        except Exception as error:  # noqa: BLE001 - report any failure and run the other checks
            findings[name] = False, _explained(error)
        passed, text = findings[name]
        _print(console, _PASSED if passed else _FAILED, name, text)
    return findings


def _examine_cluster(options: argparse.Namespace, console: Console, home: Home) -> int:
    """Look at each node of a Ray cluster: if it can train the trials of a search in this home."""
    from tuner.workers.nodes import look_at_nodes
    from tuner.workers.ray_session import cluster_address, ray_session

    address = cluster_address(options.address or ("auto" if "RAY_ADDRESS" not in environ else None))
    if address is None:
        raise TunerError("RAY_ADDRESS is local; name the cluster with --address HOST:PORT or auto")
    folder = home.search("")
    folder.mkdir(parents=True, exist_ok=True)
    with ray_session(address):
        states = look_at_nodes(folder, storage=options.storage, has_clocks=True)
    for state in states:
        node = state.node
        text = f"{counted(node.cores, 'CPU')}, {counted(node.gpus, 'GPU')}; "
        if state.problem:
            _print(console, _FAILED, node.name, text + state.problem)
            continue
        is_late = abs(state.seconds_ahead) > _MOST_SKEW_SECONDS
        text += f"versions and folder as here; its clock differs by {state.seconds_ahead:+.2f} s"
        if is_late:
            text += ": S3 and TLS refuse clocks that are far off; let NTP set it"
        _print(console, _WARNED if is_late else _PASSED, node.name, text)
    if not states:
        _print(console, _FAILED, "nodes", "no node of the cluster has a CPU or GPU for Ray")
    print_json(
        options,
        {
            "nodes": [
                {
                    "name": state.node.name, "cpus": state.node.cores, "gpus": state.node.gpus,
                    "problem": state.problem or None,
                    "seconds_ahead": None if state.problem else state.seconds_ahead,
                }
                for state in states
            ]
        },
    )  # fmt: skip
    return 0 if states and not any(state.problem for state in states) else 1


def _print(console: Console, mark: tuple[str, str], name: str, text: str) -> None:
    console.print(Text.assemble(mark, (f"{name:<8} ", "bold"), text), soft_wrap=True)


def _explained(error: Exception) -> str:
    """Return the message of an error, without the advice to run this command."""
    text = str(error).partition("\n")[0].removesuffix(DOCTOR_HINT)
    return text if isinstance(error, TunerError) else f"{type(error).__name__}: {text}"


def _python(home: Home) -> str:
    return f"{platform.python_version()} at {sys.executable}"


def _torch(home: Home) -> str:
    import torch

    from model.device.environment import computing_dtype, environment
    from model.device.processor import multiplies_bfloat16
    from model.engine.engine import Engine  # noqa: F401 - its imports are part of the check

    device = "cpu"
    if torch.cuda.is_available():
        device = "cuda"
    elif torch.backends.mps.is_available():
        device = "mps"
    facts = environment(device, computing_dtype("auto", device))
    product = torch.ones(8, 8) @ torch.ones(8, 8)
    if not bool((product == 8).all()):
        raise RuntimeError("a matrix product is wrong")
    dtype = facts["dtype"]
    if device == "cpu" and multiplies_bfloat16():
        dtype += ", or in mixed_bfloat16 where that is faster"
    return f"{facts['torch']} on {facts['device']}, trains in {dtype}"


def _compiler(home: Home) -> str:
    """Describe the compiler of ticks; a search without it trains as well, only slower."""
    from model.device.compiler import check_compiler
    from model.errors import CompileError

    try:
        return f"{check_compiler()}, compiles the ticks of long searches on a CPU"
    except CompileError as error:
        return f"no ticks are compiled: {error}"


def _ray(home: Home) -> str:
    from tuner.workers.ray_session import ray_session

    with ray_session(None):
        import ray

        answer = ray.get(ray.remote(platform.python_version).remote())
    return f"{ray.__version__} starts, its processes run Python {answer}"


def _store(home: Home) -> str:
    mlflow = f"MLflow {version('mlflow')}"
    if home.is_local and not home.has_store:  # a store is made elsewhere: checking creates none
        with TemporaryDirectory() as folder:
            Record(f"sqlite:///{folder}/mlflow.db").searches()
        return f"{mlflow}, no search yet in {home.root}"
    searches = Record(home.tracking_uri).searches()
    return f"{mlflow}, {len(searches)} searches in {home.tracking_uri}"


def _corpus(home: Home) -> str:
    size = source_bytes(DataConfig(source="python-stdlib")) or 0
    if size < 1_000_000:
        raise RuntimeError(
            f"python-stdlib has only {size:,} bytes; this Python comes without its sources, so use "
            f"data: {{files: …}}"
        )
    return f"python-stdlib, {size / 1e6:.1f} MB of source text"


def _disk(home: Home) -> str:
    free = shutil.disk_usage(home.root).free
    if free < _LEAST_FREE_BYTES:
        raise RuntimeError(f"only {free / 1e9:.1f} GB are free at {home.root}; make room")
    return f"{free / 1e9:.0f} GB free at {home.root}"


CHECKS: Mapping[str, Callable[[Home], str]] = {
    "python": _python,
    "torch": _torch,
    "compiler": _compiler,
    "ray": _ray,
    "store": _store,
    "corpus": _corpus,
    "disk": _disk,
}
