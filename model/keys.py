"""Keys of random numbers; a module of its own, so that a driver derives keys without torch."""

from __future__ import annotations

import hashlib


def derive_key(seed: int, *place: int | str) -> int:
    """Derive the 64-bit key of one use of randomness: `derive_key(seed, "order", epoch)`."""
    text = "\x1f".join([str(seed), *map(str, place)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
