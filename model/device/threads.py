"""Number of threads that torch computes with on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread: small matrices gain nothing from more, and lose on busy cores."""
    import torch

    threads = torch.get_num_threads()
    if threads > 1:  # to set the number costs time, even if it does not change
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)
