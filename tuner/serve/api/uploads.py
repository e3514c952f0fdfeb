"""Files of data that users send, kept under the digest of their contents."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.concurrency import run_in_threadpool

MOST_UPLOAD_BYTES = 1 << 30


async def keep_upload(parts: AsyncIterator[bytes], folder: Path, suffix: str) -> tuple[str, int]:
    """Write a file as it comes; return its name, which is its SHA-256, and its size.

    A file that is there already is kept: it has the same contents. If the client goes away, or the
    disk is full, nothing stays.

    Args:
        parts: contents of the file.
        folder: folder of the uploads; made if it is missing.
        suffix: end of the name, which says what kind of file it is.

    Raises:
        ClientDisconnect: if the client goes away, or sends too much.
        OSError: if the file cannot be written.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    handle, path = tempfile.mkstemp(prefix=".part-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            async for part in parts:
                digest.update(part)
                size += len(part)
                await run_in_threadpool(file.write, part)
            file.flush()
            os.fsync(file.fileno())
        name = f"{digest.hexdigest()}{suffix}"
        Path(path).replace(folder / name)
    finally:
        Path(path).unlink(missing_ok=True)
    return name, size
