"""Work for several processes, with the results in the order of the work."""

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

# Below this many bytes of text, starting processes takes longer than they save.
_WORTHWHILE_BYTES = 32_000_000


def processes_for(num_bytes: int | None, processes: int | None = None) -> int:
    """How many processes some text is worth: all cores, or one for a small text.

    Args:
        num_bytes: of text; None if that is not known.
        processes: what the caller wants; None leaves it open.
    """
    if processes is not None:
        return processes
    if num_bytes is not None and num_bytes < _WORTHWHILE_BYTES:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end_with(parent: int) -> None:
    """Make this process end soon after its parent, even one that was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int
) -> Iterator[Result]:
    """`map` by several processes: results in the order of the items, whoever was faster.

    The items are read only a little ahead of the work, so that they may be a stream. Processes
    are fresh interpreters (threads of this one could not be copied safely), and they do not run
    the caller's script again.

    Args:
        function: of a module, so that other processes find it.
        items: what it is called with.
        processes: 1 works here, without any other process.
    """
    if processes == 1:
        yield from map(function, items)
        return
    executor = get_reusable_executor(
        max_workers=processes, initializer=_end_with, initargs=(os.getpid(),)
    )
    pending = deque[Future[Result]]()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) > 2 * processes:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # what nobody will read is not begun
        for future in pending:
            future.cancel()
