"""Private folder of one Ray session: sockets, logs and token; removed when the session ends.

Ray makes its own folders writable for everybody, so they lie in a folder that only this user can
enter. A driver that is killed leaves its folder behind; the next session removes it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from tuner.home.private_folder import private_folder

# Ray appends this to the folder, and the path of a Unix socket has a limit, which includes a NUL.
_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
_LONGEST_ROOT = (104 if sys.platform == "darwin" else 108) - len(f"/tuner-12345678{_SOCKET}0")


def ray_folder(*, keep: bool = False) -> AbstractContextManager[Path]:
    """Make a folder for a Ray session, and remove it at the end.

    Args:
        keep: True to keep the folder, with Ray's logs.
    """
    return private_folder(_root(), keep=keep)


def _root() -> Path:
    """Return the folder for temporary files; /tmp where its path is too long for sockets."""
    root = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()).absolute()
    return root if len(os.fsencode(root)) <= _LONGEST_ROOT else Path("/tmp")
