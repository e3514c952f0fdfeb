"""Tags that say how far a search is, on MLflow's page of its run and as columns of its table."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.texts.formatting import clock, metric_text
from tuner.tracking.tags import Tag


def progress_tags(
    ended: int, trials: int, best: tuple[str, float, int] | None, seconds_left: float | None
) -> dict[str, str]:
    """Return the tags of a search that trains.

    Args:
        ended: number of trials that have an outcome.
        trials: number of trials that will run, as known so far.
        best: metric, its value, and number of the best trial; None before the first report.
        seconds_left: estimate of the remaining seconds; None if it is not known.
    """
    left = "unknown" if seconds_left is None else clock(seconds_left)
    tags = {Tag.TRIALS_DONE: f"{ended} of {trials}", Tag.TIME_LEFT: left}
    return tags if best is None else {**tags, Tag.BEST_SO_FAR: _best_text(*best)}


def final_tags(
    status: str, best: int | None, summary: Mapping[str, float], ended: int, trials: int
) -> dict[str, str]:
    """Return the tags of a search whose session has ended.

    Args:
        status: finished, interrupted or failed.
        best: number of the best trial; None if there is none.
        summary: numbers of the summary.
        ended: number of trials that have an outcome.
        trials: number of trials of the space, or of the journal if these are more.
    """
    is_finished = status == "finished"
    left = clock(0) if is_finished else f"unknown: {status}"
    tags = {
        Tag.TRIALS_DONE: f"{ended} of {ended if is_finished else trials}",
        Tag.TIME_LEFT: left,
    }
    name = next((name for name in summary if name.startswith("best_")), None)
    if best is None or name is None:
        return tags
    text = _best_text(name.removeprefix("best_"), summary[name], best)
    return {**tags, Tag.BEST_SO_FAR: text}


def _best_text(metric: str, value: float, number: int) -> str:
    return f"{metric} {metric_text(value)} in trial {number}"
