"""What commands share that take trained trials: RUN, --search, and the trials themselves."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tuner.commands.output import home_of
from tuner.errors import TunerError

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.trained import TrainedTrial


def check_run(options: argparse.Namespace) -> None:
    """Raise TunerError if a trial is named twice."""
    if options.run and options.search:
        raise TunerError("give a run id or --search, not both")


def loaded(options: argparse.Namespace, progress: Console, run: str | None) -> TrainedTrial:
    """A trial with its weights; whoever waits for a retraining is told why.

    Args:
        options: with `search` and `home`.
        progress: where messages go.
        run: id of its run; None for the best trial.
    """
    from tuner.progress import shown
    from tuner.trained import load_trial

    def on_report(number: int, count: int, report: Any) -> None:
        if number == 1:
            which = f"run {run}" if run else "the best trial"
            progress.print(f"{which}: its weights were not kept, so it is trained again")
        progress.print(
            f"report {number}/{count}  step {report.step}  val_loss {report.val_loss:.6f}",
            highlight=False,
        )

    with shown(progress) as on_progress:
        return load_trial(
            run,
            search=options.search,
            home=home_of(options),
            on_report=on_report,
            on_progress=on_progress,
        )
