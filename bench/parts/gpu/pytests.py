"""tests/gpu, run by pytest where it is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec

from parts.gpu.measurement import Numbers, Where
from parts.measuring import ROOT

TESTS = ("tests/gpu/test_law.py", "tests/gpu/test_service.py")
_LINE = re.compile(r"^(tests/\S+?::.+?) (PASSED|FAILED|ERROR|SKIPPED)", re.MULTILINE)


def run_tests(file: str, where: Where) -> Numbers:
    """Run a file of tests/gpu with pytest, if it is there."""
    lacking = [name for name in ("pytest", "hypothesis", "xdist") if find_spec(name) is None]
    if lacking:
        return {"skipped": f"no {' and no '.join(lacking)}"}
    # warnings of another torch, or of another driver, are no failures of the law
    command = [
        sys.executable,
        "-m",
        "pytest",
        file,
        "-v",
        "-p",
        "no:cacheprovider",
        "-W",
        "default",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("TRITON_INTERPRET", None)
    try:
        done = subprocess.run(
            [*command, "-o", "addopts=", "--tb=short"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=max(10.0, where.limit - 10),
            check=False,
        )
        output, ended = done.stdout, done.returncode in (0, 1)
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        ended = False
    print(output)  # to the log
    found = dict(_LINE.findall(output))
    if not found:
        raise RuntimeError(f"pytest ran no test: {(output.strip().splitlines() or ['?'])[-1]}")
    by_end: dict[str, list[str]] = {}
    for name, end in found.items():
        by_end.setdefault(end, []).append(name.partition("::")[2])
    return {
        "passed": len(by_end.get("PASSED", [])),
        "skipped_tests": len(by_end.get("SKIPPED", [])),
        "failed": [*by_end.get("FAILED", []), *by_end.get("ERROR", [])],
        "ended": ended,
    }
