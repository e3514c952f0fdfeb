"""A storage that can be down."""

from __future__ import annotations

import secrets
from typing import Any

import fsspec


class Switch:
    """A file system that fails while it is down, and counts its calls."""

    def __init__(self, file_system: Any) -> None:
        self._file_system = file_system
        self.is_down = False
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._file_system, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if self.is_down:
                raise ConnectionError("it was switched off")
            self.calls.append(name)
            return method(*arguments, **options)

        return call


def fresh_url() -> str:
    """The URL of a storage in memory that nobody else has."""
    return f"memory://{secrets.token_hex(8)}"


def switched(storage: Any) -> Switch:
    """Put a switch into a storage in memory."""
    switch = Switch(fsspec.filesystem("memory"))
    storage.__dict__["_place"] = switch, "/" + storage.url.partition("://")[2]
    return switch
