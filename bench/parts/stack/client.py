"""One client of the stack: records reports for some seconds, each sent alone, and prints how many.

    python -m parts.stack.client NAME SECONDS

The server and the login are those of MLflow's variables. It says `ready` once the record of its
search is begun, and starts to count when a line comes to its standard input.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from model.engine.report import Report, Status
from tuner.home.home import Home
from tuner.journal.events import Reported, SearchBegun, SessionBegun, SessionEnded, TrialBegun
from tuner.journal.follower import Follower
from tuner.journal.journal import Journal
from tuner.space.data_facts import DataFacts
from tuner.space_file.load import load_space
from tuner.tracking.projection import MlflowProjection

SPACE = Path(__file__).resolve().parents[3] / "search_spaces" / "lm.yaml"
FACTS = DataFacts(2048, 3_000_000, 150_000, "d" * 64, "t" * 64)
ENVIRONMENT = {"device": "cpu: x", "dtype": "float32", "torch": "2", "numpy": "2", "python": "3"}
_PATIENCE_SECONDS = 60.0


class RecordedSearch:
    """A search with one trial that the server has; a caller says what the trial reports.

    Args:
        name: name of the search.
        folder: its home.
    """

    def __init__(self, name: str, folder: Path) -> None:
        home = Home(folder, os.environ["MLFLOW_TRACKING_URI"])
        self._journal = Journal.open(home.search(name))
        space = load_space(SPACE).model_copy(update={"name": name})
        begun = SearchBegun(space, "", FACTS)
        self._journal.append(begun)
        self.mlflow = MlflowProjection.of(home, name, begun, lambda search: None, resume=False)
        self._follower = Follower(self.mlflow, self._journal.feed()).start()
        self._journal.append(SessionBegun(ENVIRONMENT, 1, in_order=True))
        self._journal.append(TrialBegun(0, {}, space.spec({}, FACTS, 0)))
        self.report(1)
        self.flush()

    def report(self, step: int) -> None:
        """Add a report to the journal, as the deciding thread of a driver does."""
        loss = 1 / step
        report = Report("0", Status.TRAINING, step, step * 999, loss, 1.0, 1.0, 0.1)
        self._journal.append(Reported(0, report))

    def flush(self) -> None:
        """Wait until the server has all reports."""
        problem = self._follower.flush(_PATIENCE_SECONDS)
        assert problem is None, problem

    def finish(self) -> None:
        """End the search."""
        self._journal.append(SessionEnded("finished"))
        self.flush()
        self._follower.close(_PATIENCE_SECONDS)
        self._journal.close()


def main() -> None:
    """Record, and print the number of reports and the seconds."""
    name, seconds = sys.argv[1], float(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        search = RecordedSearch(name, Path(folder))
        print("ready", flush=True)
        sys.stdin.readline()
        started, step = time.perf_counter(), 1
        while time.perf_counter() - started < seconds:
            step += 1
            search.report(step)
            search.flush()
        print(step - 1, time.perf_counter() - started, flush=True)
        search.finish()


if __name__ == "__main__":
    main()
