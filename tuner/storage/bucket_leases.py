"""Leases in the bucket of a search: the files `epochs/0001`, … with their heartbeats."""

from __future__ import annotations

from tuner.lease.holder import Holder
from tuner.lease.lease import LeaseStore, epoch_name, epochs_of
from tuner.storage.storage import Storage

_FOLDER = "epochs"


class BucketLeases(LeaseStore):
    """The records of leases in storage; a bucket lets one driver create a file (`If-None-Match`).

    Args:
        storage: storage of the search.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def epochs(self) -> list[int]:
        """Return the numbers of the leases."""
        return epochs_of(self._storage.names(_FOLDER))

    def read(self, epoch: int) -> Holder | None:
        """Return who claimed a lease; None if nobody has."""
        try:
            return Holder.parse(epoch, self._storage.read(f"{_FOLDER}/{epoch_name(epoch)}"))
        except FileNotFoundError:
            return None

    def create(self, holder: Holder) -> None:
        """Record a new lease."""
        self._storage.create(f"{_FOLDER}/{epoch_name(holder.epoch)}", holder.record)

    def write(self, holder: Holder) -> None:
        """Replace the record of a lease."""
        self._storage.write(f"{_FOLDER}/{epoch_name(holder.epoch)}", holder.record)
