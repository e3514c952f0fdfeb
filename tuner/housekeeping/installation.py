"""Checks of what a search needs on this machine."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from tempfile import TemporaryDirectory

from model.sources.registry import source_bytes
from model.spec.data import DataConfig
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.tracking.record import Record
from tuner.tracking.store import DOCTOR_HINT

_LEAST_FREE_BYTES = 2e9


@dataclass(frozen=True)
class CheckResult:
    """Result of one check: its name, if it passed, and a text about what was found."""

    name: str
    passed: bool
    text: str


def check_installation(home: Home) -> Iterator[CheckResult]:
    """Run every check; yield each result when it is there. Nothing is made in the home."""
    for name, check in CHECKS.items():
        try:
            yield CheckResult(name, True, check(home))
        except Exception as error:  # noqa: BLE001 - report any failure and run the other checks
            yield CheckResult(name, False, _explained(error))


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
    folder = next(f for f in (home.root, *home.root.parents) if f.is_dir())  # not made by checking
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        raise RuntimeError(f"cannot write to the folder {folder}; choose another with --home")
    if free < _LEAST_FREE_BYTES:
        raise RuntimeError(f"only {free / 1e9:.1f} GB are free at {folder}; make room")
    return f"{free / 1e9:.0f} GB free at {folder}"


CHECKS: Mapping[str, Callable[[Home], str]] = {
    "python": _python,
    "torch": _torch,
    "compiler": _compiler,
    "ray": _ray,
    "store": _store,
    "corpus": _corpus,
    "disk": _disk,
}
