"""Map a function over items in several processes, with the results in the order of the items."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from loky import get_reusable_executor

Item = TypeVar("Item")
Result = TypeVar("Result")

# For less text, starting processes takes longer than they save.
_WORTHWHILE_BYTES = 32_000_000


def processes_for(num_bytes: int | None, processes: int | None = None) -> int:
    """Return the number of processes for some text: one per core, or one for a small text.

    Args:
        num_bytes: of the text; None if unknown.
        processes: number that the user chose, which is returned; None for the default.
    """
    if processes is not None:
        return processes
    if num_bytes is not None and num_bytes < _WORTHWHILE_BYTES:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent(parent: int | None = None) -> None:
    """End this process within a second of the end of its parent, even if the parent is killed.

    Args:
        parent: process that counts as the parent; None for the present one.
    """
    parent = os.getppid() if parent is None else parent

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in the order of the items, computed by processes.

    Items are read only a little ahead of the work, so that they may be a stream. The processes are
    fresh interpreters, because a fork would copy the threads' locks but not the threads; they do
    not run the caller's script again.

    Args:
        function: a function of a module, so that other processes can import it.
        items: arguments of the calls.
        processes: number of processes; 1 computes in this process.
    """
    if processes == 1:
        yield from map(function, items)
        return
    executor = get_reusable_executor(
        max_workers=processes, initializer=end_with_parent, initargs=(os.getpid(),)
    )
    pending = deque[Future[Result]]()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) > 2 * processes:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except KeyboardInterrupt:
        # at the exit Python would wait for the calls under way, and for ever if interrupted there
        executor.shutdown(wait=False, kill_workers=True)
        raise
    finally:  # the caller stopped reading, or an item failed: cancel the calls not yet started
        for future in pending:
            future.cancel()
