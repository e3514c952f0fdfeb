"""A driver at work, for a bench: computes, appends an event to its journal, says so, and again.

python -m parts.load.driver FOLDER
"""

from __future__ import annotations

import hashlib
import sys
from contextlib import closing
from pathlib import Path

from tuner.journal.events import MessageSent
from tuner.journal.journal import Journal

_ROUNDS = 100_000  # of a hash, a twentieth of a second of a core between two reports


def main(folder: str) -> None:
    """Work until the process is ended."""
    with closing(Journal.open(Path(folder))) as journal:
        while True:
            hashlib.pbkdf2_hmac("sha256", b"the work of", b"a report", _ROUNDS)
            journal.append(MessageSent("still here"))
            sys.stdout.write("report\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
