"""What more trials would bring, of samplers that learn from results and of those that do not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tuner.samplers.registry import SAMPLERS
from tuner.schedulers.registry import SCHEDULERS
from tuner.space.settings import SearchConfig

_FEWEST_TRIALS = 6  # for a statement on whether more would help


def more_trials(
    search: SearchConfig,
    trials: Mapping[int, float],
    sign: int,
    metric: str,
    name: str,
    spread: float,
) -> list[str]:
    """Return a sentence on what more trials would bring; nothing if it cannot be told.

    Where draws are independent of results, the last trials say no more than the others: that they
    brought nothing is chance. There the order is averaged out.

    Args:
        search: settings of the search.
        trials: number → loss, in order; smaller is better, infinity if it did not finish.
        sign: of the metric that is shown.
        metric: its name.
        name: name of the search, for the command that continues it.
        spread: standard deviation of the objective between seeds, 0 if it is not known.
    """
    losses, count, last = list(trials.values()), len(trials), len(trials) // 3
    sampler = SAMPLERS[search.sampler]
    in_order = sampler.points is None and not SCHEDULERS[search.scheduler].is_population
    if not in_order or count < _FEWEST_TRIALS:
        return []
    before, best = min(losses[:-last]), min(losses)
    command = f"tuner search --resume {name} --trials {search.trials + last}"
    if not sampler.uses_observations:
        gain = _mean_gain(losses, last)
        small = f", less than seeds differ ({spread:.4f})" if gain <= spread else ""
        return [
            f"Draws do not learn from results ({search.sampler}): {last} more trials beat the best "
            f"{metric}, {sign * best:.4f}, with a chance of {100 * last / (count + last):.0f} %, "
            f"and gain {gain:.4f} at most on average{small}, as any {last} of these {count} did: "
            f"{command}."
        ]
    if math.isinf(before):  # no earlier trial finished
        return []
    index = losses.index(best)
    gain = before - best
    if gain > spread:
        return [
            f"More trials may help: the last {last} of {count} still improved the best "
            f"{metric} by {gain:.4f}, to {sign * best:.4f}; {last} more would gain about as much "
            f"at most: {command}."
        ]
    if gain > 0:
        return [
            f"The last {last} of {count} trials improved the best {metric} by {gain:.4f} "
            f"only, less than seeds differ ({spread:.4f}); more of the same will probably not help."
        ]
    return [
        f"The last {count - 1 - index} of {count} trials did not improve the best {metric}, "
        f"{sign * best:.4f} of trial {list(trials)[index]}; more of the same will probably not "
        f"help."
    ]


def _mean_gain(losses: Sequence[float], last: int) -> float:
    """Return what the last trials improved the best by, on average over all orders.

    The mean of a minimum falls ever more slowly with the number of draws, so that as many more
    trials gain less on average. Orders without a finished trial before the last are left out.
    """
    ranked = sorted(value for value in losses if math.isfinite(value))
    count, kept = len(losses), len(losses) - last
    # in how many orders the trial of a rank is the best of those before the last
    orders = [math.comb(count - 1 - rank, kept - 1) for rank in range(len(ranked))]
    mean = sum(n * loss for n, loss in zip(orders, ranked, strict=True)) / sum(orders)
    return mean - ranked[0]
