"""Memory of a process and of its descendants, read from /proc (Linux only)."""

from __future__ import annotations

from pathlib import Path


def descendants(root: int) -> list[int]:
    """Return the ids of a process and of its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # ended in the meantime
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    pids, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        pids.append(pid)
        waiting += children.get(pid, [])
    return pids


def pss_bytes(pids: list[int]) -> int:
    """Return the proportional set size of processes in bytes: shared pages count once."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(x.split()[1]) for x in text.splitlines() if x.startswith("Pss:")) * 1024
    return total
