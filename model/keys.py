"""Keys of random numbers; apart from the numbers, so that a driver makes keys without torch."""

from __future__ import annotations

import hashlib


def derive_key(seed: int, *place: int | str) -> int:
    """A 64-bit key for one place: `derive_key(seed, "order", epoch)`."""
    text = "\x1f".join([str(seed), *map(str, place)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
