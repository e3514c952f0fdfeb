"""Chooses float32 or mixed_bfloat16 for a search on a CPU: `engine.dtype: auto`.

A process measures while Ray starts. The home keeps the result, so that later searches of the same
model choose the same dtype at once.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from model.device.processor import instruction_sets, multiplies_bfloat16, processor_name
from model.engine.measurements import add_measurement, key_of, read_measurements
from model.spec.trial import TrialSpec
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.workers.compilation import expected_seconds
from tuner.workers.devices import has_nvidia_gpu, num_cores

MIXED = "mixed_bfloat16"
LEAST_GAIN = 1.1  # times as fast as float32; measurements of a tick differ by a twentieth
_LEAST_SECONDS = 80.0  # of expected training: a shorter search does not repay the measurement
_TIMEOUT_SECONDS = 20.0  # on a machine that is too busy to measure
_WAIT_SECONDS = 0.05
_END_SECONDS = 1.0  # for a thread to notice that nobody needs the answer


class ProductsMeasurement:
    """Measurement of the gain of products in bfloat16, kept or under way.

    Args:
        spec: specification of the first trial.
        file: file of measurements.
        is_worth_it: False to take float32 if the file has no measurement.
    """

    def __init__(self, spec: TrialSpec, file: Path, *, is_worth_it: bool) -> None:
        self._file = file
        self._facts: dict[str, Any] = {
            "device": f"cpu: {processor_name()}",
            "dtype": MIXED,
            "torch": metadata.version("torch"),
            "architecture": spec.architecture.model_dump(mode="json"),
            "micro_batch": spec.micro_batch,
        }
        self._key = key_of([self._facts, instruction_sets()])
        kept = read_measurements(file).get(self._key, {}).get("gain")
        self._gain = kept if isinstance(kept, float) else 0.0
        self._process = _begin(spec) if is_worth_it and not self._gain else None
        self._lock = threading.Lock()  # compilation waits in a thread, and the start of workers

    def dtype(self, on_wait: Callable[[], None] = lambda: None) -> str:
        """Wait for the result; return mixed_bfloat16 if it is clearly faster, otherwise float32.

        Args:
            on_wait: function to call about twenty times a second meanwhile.
        """
        while not self._lock.acquire(timeout=_WAIT_SECONDS):
            on_wait()
        try:
            if self._process is not None:
                self._gain = _answer(self._process, on_wait)
                self._process = None
                if self._gain:
                    add_measurement(self._file, self._key, {"gain": self._gain, **self._facts})
        finally:
            self._lock.release()
        return MIXED if self._gain >= LEAST_GAIN else "float32"

    def end(self) -> None:
        """End the process, if it still measures; a thread that waits for it must have been told."""
        if not self._lock.acquire(timeout=_END_SECONDS):
            return  # that thread ends the process
        try:
            if self._process is not None:
                self._process.kill()
                self._process.communicate()
                self._process = None
        finally:
            self._lock.release()


def begin_measurement(
    space: SearchSpace, facts: DataFacts, file: Path
) -> ProductsMeasurement | None:
    """Begin to measure, or find a measurement; return None if setting or device decide.

    Args:
        space: space of a new search.
        facts: facts of its data.
        file: file of measurements.
    """
    engine = space.engine
    if engine.dtype != "auto" or engine.device not in {"auto", "cpu"} or not multiplies_bfloat16():
        return None
    if engine.device == "auto" and has_nvidia_gpu():
        return None
    least = _LEAST_SECONDS * (engine.workers or num_cores())
    return ProductsMeasurement(
        space.spec(space.defaults(), facts, space.search.seed),
        file,
        is_worth_it=expected_seconds(space, facts) >= least,
    )


def _begin(spec: TrialSpec) -> subprocess.Popen[str]:
    """Start the process that measures."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "model.engine.products"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    with suppress(OSError), process.stdin as pipe:
        pipe.write(spec.model_dump_json())
    process.stdin = None
    return process


def _answer(process: subprocess.Popen[str], on_wait: Callable[[], None]) -> float:
    """Return what the process measures; 0 if it fails."""
    end = time.monotonic() + _TIMEOUT_SECONDS
    while process.poll() is None and time.monotonic() < end:
        on_wait()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_WAIT_SECONDS)
    process.kill()
    answer, _ = process.communicate()
    try:
        return float(answer)
    except ValueError:  # the trials will report whatever is broken
        return 0.0
