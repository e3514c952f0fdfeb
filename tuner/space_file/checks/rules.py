"""The table of all rules of a complete search space, in the order of their checks."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.space.space import SearchSpace
from tuner.space_file.checks import (
    check_compare,
    check_conditions,
    check_proxy,
    check_search,
    check_space,
)
from tuner.space_file.checks.rule import CheckedSpace, Rule
from tuner.space_file.yaml_file import Place, YamlFile

RULES = (
    Rule(("lora", "init_from", "hyperparameters"), check_space.lora),
    Rule((), check_proxy.start),
    Rule(("hyperparameters", "budget"), check_proxy.lengths),
    Rule(("hyperparameters",), check_proxy.batch_rule),
    Rule(("hyperparameters",), check_proxy.values),
    Rule(("hyperparameters", "model"), check_proxy.shapes),
    Rule(("data",), check_space.data),
    Rule((), check_space.start),
    Rule(("model",), check_space.context_length),
    Rule(("hyperparameters", "budget"), check_space.budget),
    Rule(("hyperparameters", "engine", "proxy"), check_space.batch),
    Rule((), check_space.device),  # a wrong engine has its defaults, which break no rule
    Rule(("model", "hyperparameters"), check_conditions.circles),
    Rule(("model", "hyperparameters"), check_conditions.conditions),
    Rule(("model", "hyperparameters"), check_conditions.effects),
    Rule(("model", "hyperparameters", "tokenizer", "proxy"), check_space.shapes),
    Rule(("model", "hyperparameters", "search"), check_space.grid),
    Rule(("model", "hyperparameters", "budget", "proxy"), check_space.conflicting),
    Rule(("objective", "data", "hyperparameters"), check_search.metrics),
    Rule(("objective", "search"), check_search.several_objectives),
    Rule(("search", "budget", "objective"), check_search.comparisons),
    Rule(("search", "budget", "hyperparameters"), check_search.scheduler),
    Rule(("search", "model", "hyperparameters"), check_search.grid_sampler),
    Rule(("search", "model", "hyperparameters"), check_search.points),
    Rule(("search",), check_search.scheduler_of_budgets),
    Rule(("search", "objective"), check_search.sources),
    Rule(("search", "objective"), check_search.what_is_left),
    Rule(("model", "hyperparameters", "compare"), check_compare.parameter),
    Rule(("search", "budget", "confirm", "compare"), check_compare.settings),
    Rule(("search", "model", "hyperparameters", "compare"), check_compare.shares),
    Rule((), check_proxy.budgets),
    Rule(("hyperparameters",), check_space.schedule_of_budgets),
)


def check(space: SearchSpace, file: YamlFile, places: Mapping[str, Place]) -> None:
    """Note all mistakes of a space in its file.

    Args:
        space: space of the file; wrong sections have their defaults.
        file: file of the space.
        places: name of a parameter → its place in the file.
    """
    checked = CheckedSpace(space, places)
    for rule in RULES:
        if not file.is_wrong(*rule.reads):
            for finding in rule.check(checked):
                file.note(finding.place, finding.message, at_key=finding.at_key)
