"""Cost of `engine.storage` for the process that sends: a worker its states, the driver its journal.

    python bench/storage.py s3://bucket/folder           credentials and endpoint: environment
    python bench/storage.py s3://bucket/folder --repeat 9

*CPU*: processor time of this process, threads of the library included. *Wall*: until the server has
answered. Both are medians; the first request, which connects, is not counted. What is written is
deleted.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tuner.storage.storage import Storage

MEGABYTES = (0.01, 1.0, 4.0, 16.0, 64.0)


def measured(action: Callable[[], object], repeat: int) -> tuple[float, float]:
    """Return the processor time and the time of an action, medians in seconds."""
    action()
    cpu, wall = [], []
    for _ in range(repeat):
        began = time.process_time(), time.perf_counter()
        action()
        cpu.append(time.process_time() - began[0])
        wall.append(time.perf_counter() - began[1])
    return statistics.median(cpu), statistics.median(wall)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", help="a folder in a bucket")
    parser.add_argument("--repeat", type=int, default=15, help="requests of each kind")
    options = parser.parse_args()
    storage = Storage(options.url).at(f"bench-{secrets.token_hex(4)}")
    storage.check()

    def show(what: str, action: Callable[[], object]) -> None:
        cpu, wall = measured(action, options.repeat)
        print(f"{what:32} CPU {1e3 * cpu:7.1f} ms   wall {1e3 * wall:7.1f} ms")

    try:
        line = os.urandom(1000).hex().encode() + b"\n"
        show("lines of the journal, 2 KB", lambda: storage.write("journal/1", line))
        show("look for a newer driver", lambda: storage.names("epochs"))
        with tempfile.TemporaryDirectory() as folder:
            for size in MEGABYTES:
                path = Path(folder, f"{size}.safetensors")
                path.write_bytes(os.urandom(int(size * 1e6)))
                name = f"checkpoints/0/{path.name}"
                show(f"send a state of {size:g} MB", lambda p=path, n=name: storage.upload(p, n))
                show(
                    f"fetch a state of {size:g} MB",
                    lambda p=path, n=name: storage.download(n, p),
                )
    finally:
        storage.delete_folder()


if __name__ == "__main__":
    main()
