"""Checks of `search:`, `objective:` and `confirm:` against each other and the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tuner.formatting import listed as in_words
from tuner.space.combinations import count
from tuner.space.first_draws import PointError, named_point
from tuner.space.objective import ONLY_AT_THE_END
from tuner.space.parameter import Parameter, symbol
from tuner.space.space import SearchSpace
from tuner.space_file.yaml_file import Place, YamlFile

_MIN_POPULATION = 4  # pbt copies from the best quarter to the worst quarter
_MULTI_OBJECTIVE = ("tpe", "random", "qmc", "nsga2", "grid")  # samplers


class SearchChecks:
    """Checks of the search settings; mistakes are noted in the file.

    Args:
        space: space of the file; wrong sections have their defaults.
        file: file of the space.
        places: name of a parameter → its place in the file.
    """

    def __init__(self, space: SearchSpace, file: YamlFile, places: Mapping[str, Place]) -> None:
        self._space = space
        self._search = space.search
        self._file = file
        self._places = places

    def run(self) -> None:
        """Note all mistakes. A check runs only if the sections that it reads are valid."""
        checks: list[tuple[Callable[[], None], tuple[str, ...]]] = [
            (self._check_metrics, ("objective", "data", "hyperparameters")),
            (self._check_several_objectives, ("objective", "search")),
            (self._check_scheduler, ("search", "budget", "objective")),
            (self._check_population, ("search", "budget", "hyperparameters")),
            (self._check_sampler, ("search", "model", "hyperparameters")),
            (self._check_points, ("search", "model", "hyperparameters")),
        ]
        for check, sections in checks:
            if not self._file.is_wrong(*sections):
                check()

    def _note(self, key: str, message: str) -> None:
        self._file.note(("search", key), message)

    # objectives --------------------------------------------------------------------------------

    def _objective_place(self, number: int) -> Place:
        return ("objective", number) if self._space.further_objectives else ("objective",)

    def _check_metrics(self) -> None:
        """Check that every trial will have a value of each metric."""
        for number, objective in enumerate(self._space.objectives):
            metric, place = objective.metric, (*self._objective_place(number), "metric")
            if metric in ("token_accuracy", "bleu") and not self._space.data.pairs:
                message = f"{metric} is available only with data of pairs (data.pairs: true)"
                self._file.note(place, f"{message}; choose another metric")
            elif metric == "sparsity" and not self._always_prunes():
                message = "sparsity is available only for trials that prune"
                self._file.note(place, f"{message}; give s_final values above 0 only, without when")

    def _always_prunes(self) -> bool:
        unconditional = [
            p for p in self._space.parameters if p.name == "target_sparsity" and not p.when
        ]
        return any(min(map(float, p.distribution.ends())) > 0 for p in unconditional)

    def _check_several_objectives(self) -> None:
        if not self._space.further_objectives:
            return
        if self._search.scheduler != "none":
            message = "no scheduler can compare unfinished trials by several objectives"
            got = f"got {self._search.scheduler}"
            self._note("scheduler", f"search.scheduler: {message}; set it to none, {got}")
        elif self._search.sampler not in _MULTI_OBJECTIVE:
            message = f"search.sampler must be {in_words(_MULTI_OBJECTIVE)} for several objectives"
            self._note("sampler", f"{message}, got {self._search.sampler}")

    # schedulers --------------------------------------------------------------------------------

    def _check_scheduler(self) -> None:
        """Check that a scheduler has reports to compare, and the sampler that it needs."""
        scheduler, metric = self._search.scheduler, self._space.objective.metric
        if scheduler == "none" or self._space.further_objectives:
            return
        if metric in ONLY_AT_THE_END:
            message = f"{scheduler} compares unfinished trials, for which {metric} has no meaning"
            self._note("scheduler", f"search.scheduler: {message}; set it to none")
        elif self._space.budget.reports < 2:
            message = f"{scheduler} compares unfinished trials, which needs at least 2 reports"
            got = f"got {self._space.budget.reports}; or set search.scheduler: none"
            self._file.note(("budget", "reports"), f"budget.reports: {message}, {got}")
        elif scheduler == "bohb" and self._search.sampler != "tpe":
            message = f"bohb is a scheduler with its own sampler, tpe, got {self._search.sampler}"
            self._note("sampler", f"search.sampler: {message}; change one of them")

    def _check_population(self) -> None:
        """Check that pbt and pb2 have enough trials, exchange points, and changeable parameters."""
        name = self._search.scheduler
        if name not in ("pbt", "pb2"):
            return
        reports, perturb = self._space.budget.reports, self._search.perturb_reports
        if self._search.trials < _MIN_POPULATION:
            message = (
                f"search.trials, the size of the population, must be at least {_MIN_POPULATION}"
            )
            self._note("trials", f"{message} with {name}, got {self._search.trials}")
        if perturb >= reports:
            message = f"search.perturb_reports must be below budget.reports, {reports}"
            self._note(
                "perturb_reports",
                f"{message}, otherwise {name} never copies a trial, got {perturb}",
            )
        if not self._space.explored:
            message = f"{name} has no parameter that it can change during training"
            fix = "search a hyperparameter such as α_max or λ, not only B, sizes or optimizers"
            self._note("scheduler", f"search.scheduler: {message}; {fix}")

    # samplers ----------------------------------------------------------------------------------

    def _check_sampler(self) -> None:
        """Check that sampler grid has listable values and enough trials."""
        if self._search.sampler != "grid":
            return
        options = {}
        for p in self._space.searched:
            values = p.distribution.possible_values()
            if values is None:
                message = "every searched parameter must be a choice, a grid or a short int range"
                got = f"got {self._spelled(p)} {p.describe()}"
                self._note("sampler", f"search.sampler: with sampler grid {message}, {got}")
                return
            if p.prior is not None:
                message = "has no effect with sampler grid, which tries every value"
                place = (*self._places[p.name], "prior")
                self._file.note(place, f"{self._spelled(p)}: a prior {message}", at_key=True)
            options[p.label] = values
        trials = self._search.trials
        points = count(self._space.parameter_set, options)
        if points > trials:
            message = f"the grid has {points:,} points, but search.trials is {trials}"
            self._note("trials", f"{message}; raise it, or give fewer values")

    def _spelled(self, parameter: Parameter) -> str:
        place = self._places.get(parameter.name)
        return str(place[-1]) if place else symbol(parameter.name)

    def _check_points(self) -> None:
        """Check that each point of `try_first` can be drawn."""
        defaults = self._space.defaults()
        for number, point in enumerate(self._search.try_first):
            try:
                named_point(self._space, point, defaults)
            except PointError as error:
                place = ("search", "try_first", number, error.key)
                self._file.note(place, f"search.try_first: {error}", at_key=error.at_key)
        points, has_defaults = len(self._search.try_first), self._search.defaults != "off"
        if points and self._search.trials < points + has_defaults:
            message = f"try_first has {points} points"
            message += ", and trial 0 has the defaults" if has_defaults else ""
            self._note("trials", f"{message}, but search.trials is {self._search.trials}; raise it")
