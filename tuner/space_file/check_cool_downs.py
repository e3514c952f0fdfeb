"""Checks of a list of budgets against the scheduler, the schedule and the proxy.

That no hyperparameter depends on T_total is a rule between them (`space/conflicts.py`).
"""

from __future__ import annotations

from tuner.space.space import SearchSpace
from tuner.space_file.yaml_file import YamlFile


class CoolDownChecks:
    """Checks of several budgets; mistakes are noted in the file.

    Args:
        space: space of the file; wrong sections have their defaults.
        file: file of the space.
    """

    def __init__(self, space: SearchSpace, file: YamlFile) -> None:
        self._space = space
        self._file = file

    def run(self) -> None:
        """Note all mistakes. A check runs only if the sections that it reads are valid."""
        if not self._space.budget.shorter:
            return
        if not self._file.is_wrong("search") and self._space.search.scheduler != "none":
            self._note(
                f"needs search.scheduler none, since losses before the cool-down say little of "
                f"those after it, got {self._space.search.scheduler}"
            )
        if self._space.proxy is not None:
            self._note("has no rule for proxies, so leave out proxy, or give one budget")
        if not self._file.is_wrong("hyperparameters"):
            schedules = self._space.possible("schedule") or []
            other = [schedule for schedule in schedules if schedule != "wsd"]
            if other:
                self._note(f"needs schedule wsd, whose rate is constant first, got {other[0]}")

    def _note(self, message: str) -> None:
        message = f"budget.tokens: a list of budgets {message}"
        self._file.note(("budget", "tokens"), message)
