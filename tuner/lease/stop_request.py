"""Requests to a driver to end its search: a file beside its lease, `epochs/0001.stop-soon`."""

from __future__ import annotations

import os
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from tuner.lease.folder import opened
from tuner.lease.holder import Holder
from tuner.lease.lease import epoch_name

LOOK_SECONDS = 1.0  # between two looks of a driver for a request


class StopRequest(StrEnum):
    """How a driver is asked to end its search, in the order in which it looks for requests."""

    NOW = "now"  # without waiting
    SOON = "soon"  # after the reports under way

    def file_of(self, epoch: int) -> str:
        """Return the name of the file that asks the driver of an epoch."""
        return f"{epoch_name(epoch)}.stop-{self}"


def request_stop(folder: Path, holder: Holder, request: StopRequest) -> None:
    """Ask the driver of a search to end it, wherever it runs: it looks once a second.

    Args:
        folder: folder of the search.
        holder: newest driver of the search.
        request: how.

    Raises:
        OSError: if the request cannot be written.
    """
    flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW
    with opened(folder) as parent:
        os.close(os.open(request.file_of(holder.epoch), flags, 0o666, dir_fd=parent))


def stop_request(folder: Path, epoch: int) -> StopRequest | None:
    """Return how `request_stop` has asked the driver of an epoch to end; None if it has not."""
    with suppress(OSError), opened(folder) as parent:  # nobody can tell: the search goes on
        for request in StopRequest:
            with suppress(FileNotFoundError):
                os.stat(request.file_of(epoch), dir_fd=parent, follow_symlinks=False)
                return request
    return None
