"""One side of makespan.py as a program, and the processor time of its processes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from parts import measuring
from parts.processes import ProcessTimes

NONE: Mapping[str, str] = MappingProxyType({})
_LEAST_SECONDS = 1.0


class Program:
    """Runs modules as programs.

    Args:
        samples: True to measure the processor time of their processes (Linux only).
        actors: kind of the processes of Ray Tune's trials: "client", or "worker" if they train.
    """

    def __init__(self, samples: bool, actors: str) -> None:
        self._samples, self._actors = samples, actors
        self._times: ProcessTimes | None = None

    def output(
        self, module: str, arguments: list[str], log: Path, variables: Mapping[str, str] = NONE
    ) -> dict[str, Any]:
        """Run a module, with further variables, and return the JSON object on its last line."""
        command, environment = measuring.module_command(module, *arguments)
        environment |= variables
        with (
            log.open("w") as errors,
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as process,
        ):
            self._times = ProcessTimes(process.pid) if self._samples else None
            out, _ = process.communicate()
            if self._times is not None:
                self._times.stop()
        if process.returncode:
            name = " ".join([module, *arguments[:1]])
            raise SystemExit(f"{name} failed:\n{log.read_text()[-3000:]}")
        measurements: dict[str, Any] = json.loads(out.splitlines()[-1])
        return measurements

    def spent(self, began: float, first_training: float) -> dict[str, Any]:
        """Return the processor time of the last program by kind of process.

        Args:
            began: Unix time of its start.
            first_training: seconds until its training.

        Returns:
            processes, with their number, seconds until the training and seconds in all; nothing if
            the times are not measured.
        """
        times = self._times
        if times is None:
            return {}
        until, counts = times.until(began + first_training), times.counts()
        processes = {
            self._actors if kind == "client" else kind: {
                "number": counts[kind], "until": until.get(kind, 0.0), "seconds": seconds,
            }
            for kind, seconds in times.until().items()
        }  # fmt: skip
        return {"processes": processes}


def tables(
    measurements: Mapping[str, list[dict[str, Any]]], names: Mapping[str, str], cores: int
) -> list[Any]:
    """Return the table of processor time by process, of the first round of each side, if measured.

    Kinds of processes with less than a second are left out.

    Args:
        measurements: side → its measurements.
        names: side → its name.
        cores: cores of the machine.
    """
    rows = []
    for side, (run, *_) in measurements.items():
        kinds = sorted(run.get("processes", {}).items(), key=lambda kind: -kind[1]["seconds"])
        for kind, spent in kinds:
            if spent["seconds"] < _LEAST_SECONDS:
                continue
            share = spent["seconds"] / (cores * run["wall"])
            rows.append([names[side], kind, *spent.values(), share])
    columns = ["side", "process", "number", "s until training", "s", "of the cores"]
    title = "Processor time by process"
    return [{"title": title, "columns": columns, "rows": rows}] if rows else []
