"""Name and instruction sets of the processor, and memory of the machine; needs no torch."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path


def processor_name() -> str:
    """Return the name of the processor; its architecture if the system does not know the name."""
    name = _cpuinfo("model name")
    return name or platform.processor() or platform.machine()


def instruction_sets() -> str:
    """Return the architecture and instruction sets; processors of one name may differ in them."""
    return f"{platform.machine()} {_cpuinfo('flags') or _cpuinfo('Features')}"


def multiplies_bfloat16() -> bool:
    """Return True if the processor has instructions for matrix products in bfloat16."""
    names = {"avx512_bf16", "amx_bf16", "bf16"}  # the last one of ARM
    return not names.isdisjoint(instruction_sets().split())


def machine_memory() -> int:
    """Return the memory of the machine in bytes, or the limit of its control group."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory


def _cpuinfo(name: str) -> str:
    """Return an entry of the first core in /proc/cpuinfo; empty if there is none."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return ""
