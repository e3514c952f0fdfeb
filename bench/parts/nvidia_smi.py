"""Load and memory of the GPU while something runs, from nvidia-smi."""

from __future__ import annotations

import subprocess
import threading
import time

PERIOD_SECONDS = 0.5
_COMMAND = (
    "nvidia-smi",
    "--query-gpu=utilization.gpu,memory.used",
    "--format=csv,noheader,nounits",
)


class GpuSamples(threading.Thread):
    """Samples the GPU twice a second from `with` to its end, or to `stop`.

    Args:
        enabled: False to sample nothing.

    Attributes:
        busy: moment of each sample, and the seconds in which the GPU was busy until then.
        peak: largest memory in use, in bytes.
    """

    def __init__(self, *, enabled: bool) -> None:
        super().__init__(daemon=True)
        self.busy: list[tuple[float, float]] = []
        self.peak = 0
        self._enabled, self._done = enabled, threading.Event()

    def run(self) -> None:
        """Sample until `stop`."""
        seconds, last = 0.0, time.time()
        while not self._done.wait(PERIOD_SECONDS):
            done = subprocess.run(_COMMAND, capture_output=True, text=True, check=False)
            words = done.stdout.splitlines()[0].split(", ") if done.returncode == 0 else []
            if len(words) == 2 and all(word.isdigit() for word in words):
                now = time.time()
                seconds += int(words[0]) / 100 * (now - last)
                last = now
                self.busy.append((now, seconds))
                self.peak = max(self.peak, int(words[1]) * 2**20)

    def __enter__(self) -> GpuSamples:
        if self._enabled:
            self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
