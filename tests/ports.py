"""Ports for servers of tests."""

from __future__ import annotations

import random
import socket

# Below those that systems give to connections (from 32768 on Linux): a port that was free would
# else be taken by some connection of Ray before its server begins to listen.
_RANGE = (12_000, 32_000)
_dice = random.SystemRandom()  # processes of other tests draw other ports


def free_port() -> int:
    """Return a port of this machine's loopback on which nobody listens."""
    while True:
        port = _dice.randrange(*_RANGE)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
