"""A map over processes ends at an interrupt, whatever its calls do."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

CODE = """
import time
from model.parallel import ordered_map
for _ in ordered_map(time.sleep, [0] + [300] * 5, 2):
    print("first", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def _hear_interrupts() -> None:
    """A background job of a shell ignores SIGINT, and so do its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("count", [1, 2])
def test_interrupt_ends_a_map_without_its_calls(count: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CODE],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=_hear_interrupts,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "first\n"
            time.sleep(1)
            for _ in range(count):
                process.send_signal(signal.SIGINT)
                time.sleep(0.05)
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in error
