"""Files that are complete or do not exist, written under temporary names that nobody can guess.

Whoever may write to a folder could lay a link where a known name is about to be written. A new name
is made with mode "x" or by mkdir, which follow no link, and with the permissions of the umask.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def hidden_name(path: Path) -> Path:
    """Return a new hidden path beside a path, for what will be renamed to the path."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that replaces the file at a path when the block ends without an error."""
    temporary = hidden_name(path)
    opened = temporary.open("xb")
    try:
        with opened as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
