"""Rules of `search:` and `objective:`, beside each other, the budget and the parameters."""

from __future__ import annotations

from collections.abc import Iterator

from tuner.samplers.registry import SAMPLERS
from tuner.schedulers.registry import SCHEDULERS, no_draws
from tuner.space.combinations import count
from tuner.space.first_draws import PointError, named_point
from tuner.space.objective import ONLY_AT_THE_END
from tuner.space.space import SearchSpace
from tuner.space_file.checks.check_space import large_grid
from tuner.space_file.checks.rule import CheckedSpace, Finding
from tuner.texts.formatting import listed as in_words

# objectives --------------------------------------------------------------------------------------


def metrics(checked: CheckedSpace) -> Iterator[Finding]:
    """Every trial will have a value of each metric."""
    space = checked.space
    for number, objective in enumerate(space.objectives):
        metric = objective.metric
        within = ("objective", number) if space.further_objectives else ("objective",)
        data = space.data
        has_it = {"bleu": data.pairs, "token_accuracy": data.has_rows}
        if not has_it.get(metric, True):
            message = f"{metric} is available only with data of pairs (data.pairs: true)"
            yield Finding((*within, "metric"), f"{message}; choose another metric")
        elif metric == "exact_match" and not data.learns_answers:
            message = "exact_match is available only with examples whose answers are learned"
            fix = "(data.examples: true, without loss_on: all); choose another metric"
            yield Finding((*within, "metric"), f"{message} {fix}")
        elif metric in ("acc", "acc_norm") and data.multiple_choice is None:
            message = f"{metric} is available only with questions"
            fix = "give data.multiple_choice a .jsonl file, or choose another metric"
            yield Finding((*within, "metric"), f"{message}; {fix}")
        elif metric == "sparsity" and not _always_prunes(space):
            message = "sparsity is available only for trials that prune"
            fix = "give s_final values above 0 only, without when"
            yield Finding((*within, "metric"), f"{message}; {fix}")


def _always_prunes(space: SearchSpace) -> bool:
    unconditional = [p for p in space.parameters if p.name == "target_sparsity" and not p.when]
    return any(min(map(float, p.distribution.ends())) > 0 for p in unconditional)


def several_objectives(checked: CheckedSpace) -> Iterator[Finding]:
    """Scheduler and sampler bear several objectives."""
    search = checked.space.search
    if not checked.space.further_objectives:
        return
    if SCHEDULERS[search.scheduler].compares:
        message = "no scheduler can compare unfinished trials by several objectives"
        fix = f"set it to none, got {search.scheduler}"
        yield Finding(("search", "scheduler"), f"search.scheduler: {message}; {fix}")
    elif not SAMPLERS[search.sampler].for_several_objectives:
        names = [name for name, kind in SAMPLERS.items() if kind.for_several_objectives]
        allowed = in_words(sorted(names, reverse=True))  # tpe, the default, first
        message = f"search.sampler must be {allowed} for several objectives, got {search.sampler}"
        yield Finding(("search", "sampler"), message)


# schedulers --------------------------------------------------------------------------------------


def comparisons(checked: CheckedSpace) -> Iterator[Finding]:
    """A scheduler has reports to compare, and the sampler that it needs."""
    space, name = checked.space, checked.space.search.scheduler
    kind, metric, sampler = SCHEDULERS[name], space.objective.metric, space.search.sampler
    if not kind.compares or space.further_objectives:
        return
    compares = f"{name} compares unfinished trials"
    if metric in ONLY_AT_THE_END:
        message = f"{compares}, for which {metric} has no meaning; set it to none"
        yield Finding(("search", "scheduler"), f"search.scheduler: {message}")
    elif space.budget.reports < 2:
        message = f"{compares}, which needs at least 2 reports, got {space.budget.reports}"
        fix = "or set search.scheduler: none"
        yield Finding(("budget", "reports"), f"budget.reports: {message}; {fix}")
    elif kind.sampler not in (None, sampler):
        message = f"{name} is a scheduler with its own sampler, {kind.sampler}, got {sampler}"
        yield Finding(("search", "sampler"), f"search.sampler: {message}; change one of them")


def scheduler(checked: CheckedSpace) -> Iterator[Finding]:
    """The settings are those that the scheduler allows."""
    name = checked.space.search.scheduler
    for key, message in SCHEDULERS[name].mistakes(checked.space, name):
        yield Finding(("search", key), message)


def sources(checked: CheckedSpace) -> Iterator[Finding]:
    """What learns has first trials of its own, and one loss."""
    space, search = checked.space, checked.space.search
    if search.learn_from == "off" or "learn_from" not in search.model_fields_set:
        return
    reason = ""
    if SCHEDULERS[search.scheduler].is_population:
        reason = f"{search.scheduler} trains its first trials as one population"
    elif space.further_objectives:
        reason = "sources know one loss, and this search has several objectives"
    if reason:
        yield Finding(("search", "learn_from"), f"search.learn_from: {reason}; set it to off")


def scheduler_of_budgets(checked: CheckedSpace) -> Iterator[Finding]:
    """With a list of budgets no scheduler compares unfinished trials."""
    name = checked.space.search.scheduler
    if checked.space.budget.shorter and SCHEDULERS[name].compares:
        message = "needs search.scheduler none, since losses before the cool-down say little of"
        message = f"budget.tokens: a list of budgets {message} those after it, got {name}"
        yield Finding(("budget", "tokens"), message)


def what_is_left(checked: CheckedSpace) -> Iterator[Finding]:
    """A search that ends when little is left has one best value, and draws trials."""
    key, why = "stop_when_left_below", no_draws(checked.space)
    if checked.space.search.stop_when_left_below is None or why is None:
        return
    message = f"what is left to gain is not known {why}; leave it out"
    yield Finding(("search", key), f"search.{key}: {message}")


# samplers ----------------------------------------------------------------------------------------


def grid_sampler(checked: CheckedSpace) -> Iterator[Finding]:
    """A sampler of all points has listable values and enough trials."""
    space, name = checked.space, checked.space.search.sampler
    if SAMPLERS[name].points is None:
        return
    options = {}
    for p in space.searched:
        values = p.distribution.possible_values()
        if values is None:
            message = "every searched parameter must be a choice, a grid or a short int range"
            message = f"with sampler {name} {message}, got {checked.spelled(p.name)} {p.describe()}"
            yield Finding(("search", "sampler"), f"search.sampler: {message}")
            return
        if p.prior is not None:
            message = f"a prior has no effect with sampler {name}, which tries every value"
            place = (*checked.places[p.name], "prior")
            yield Finding(place, f"{checked.spelled(p.name)}: {message}", at_key=True)
        options[p.label] = values
    yield from large_grid(checked, count(space.parameter_set, options))


def points(checked: CheckedSpace) -> Iterator[Finding]:
    """Each point of `try_first` can be drawn, and there are trials for all."""
    space, search = checked.space, checked.space.search
    defaults = space.defaults()
    for number, point in enumerate(search.try_first):
        try:
            named_point(space, point, defaults)
        except PointError as error:
            place = ("search", "try_first", number, error.key)
            yield Finding(place, f"search.try_first: {error}", at_key=error.at_key)
    points, has_defaults = len(search.try_first), search.defaults != "off"
    if points and search.trials < points + has_defaults:
        message = f"try_first has {points} points"
        message += ", and trial 0 has the defaults" if has_defaults else ""
        message += f", but search.trials is {search.trials}; raise it"
        yield Finding(("search", "trials"), message)
