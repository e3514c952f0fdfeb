"""Mistakes in `compare:` and the settings that it does not allow. `▲` marks the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuner.space_file.test_load import mistakes_of, split_marks
from tuner.space.objective import Compare
from tuner.space.settings import Confirm
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space
from tuner.space_file.overrides import Override

HEAD = """\
budget: {tokens: 90000, reports: 9}
model: {n_layers: {int: [1, 3]}}
hyperparameters:
  optimizer: {choice: [adamw, lion, sgd]}
  α_max: {log: [1e-4, 1e-1]}
  β2: {choice: [0.9, 0.99], when: {optimizer: [adamw, lion]}}
  λ: [{choice: [0, 0.1], when: {optimizer: adamw}}, {choice: [0, 1], when: {optimizer: lion}}]
  B: {choice: [8, 16]}
  p_drop: 0.1
"""
BY = HEAD + "compare: {by: optimizer}\n"

MISTAKES = {
    "text": (HEAD + "compare: ▲optimizer", "compare must be a mapping with the keys by, got optim"),
    "key": (HEAD + "compare: {by: B, ▲seeds: 3}", "unknown key in compare: seeds; valid names: by"),
    "no key": (HEAD + "compare: ▲{}", "compare.by must be given, got {}"),
    "number": (HEAD + "compare: {by: ▲3}", "compare.by must be a text; quote it if it looks like"),
    "unknown": (HEAD + "compare: {by: ▲optimiser}", "unknown parameter optimiser; did you mean op"),
    "nonsense": (HEAD + "compare: {by: ▲xyzzy}", "unknown parameter xyzzy; name a parameter of th"),
    "not set": (HEAD + "compare: {by: ▲τ}", "compare.by: τ is not set in this space; give it a ch"),
    "constant": (HEAD + "compare: {by: ▲p_drop}", "p_drop is constant, 0.1; give it a choice of"),
    "range": (HEAD + "compare: {by: ▲α_max}", "α_max is drawn from a range, log-uniform 0.0001 …"),
    "condition": (HEAD + "compare: {by: ▲β2}", "β2 has a when, so that some trials would have no"),
    "alternatives": (HEAD + "compare: {by: ▲λ}", "λ is a list of alternatives; compare needs one"),
    "one value": (
        "budget: {tokens: 90000}\nhyperparameters: {B: {choice: [8]}, α_max: {log: [1e-4, 1]}}\n"
        "compare: {by: ▲B}",
        "compare.by: B has one value only; compare needs two or more",
    ),
    "length": (
        "hyperparameters: {T_total: {choice: [10, 20]}}\ncompare: {by: ▲T_total}",
        "compare.by: T_total sets how long trials train, and arms must train equally long",
    ),
    "no budget": (
        "hyperparameters: {T_total: 99, B: {choice: [8, 16]}}\ncompare: {by: ▲B}",
        "compare: needs budget.tokens or budget.flops, so that all arms train equally long",
    ),
    "prior": (
        BY.replace("sgd]}", "sgd], ▲prior: {centre: lion}}"),
        "optimizer: a prior has no effect with compare, which gives every value the same trials",
    ),
    "trials": (
        BY + "search: {trials: ▲25}",
        "search.trials: 25 trials cannot be shared equally by 3 arms; set search.trials to 27 or",
    ),
    "few trials": (
        BY + "search: {trials: ▲2}",
        "search.trials: 2 trials cannot be shared equally by 3 arms; set search.trials to 3",
    ),
    "population": (
        BY + "search: {scheduler: ▲pbt}",
        "search.scheduler: trials of a population copy each other across arms; with compare use",
    ),
    "grid": (
        "budget: {tokens: 90000}\nhyperparameters: {B: {choice: [8, 16]}, λ: {choice: [0, 1]}}\n"
        "compare: {by: B}\nsearch: {sampler: ▲grid, trials: 4}",
        "search.sampler: grid tries each point once, and arms may have different numbers of points",
    ),
    "points": (
        BY + "search: {try_first: ▲[{α_max: 3e-3}]}",
        "search.try_first: with compare, points that are given would favour some arms; give each",
    ),
    "patience": (
        BY + "search: {patience: ▲5}",
        "search.patience would end the search for all arms once one is ahead; with compare leave",
    ),
    "off": (BY + "confirm: ▲off", "confirm: compare needs the retrainings with fresh seeds, which"),
    "top": (BY + "confirm: ▲{top: 0}", "confirm: compare needs the retrainings with fresh seeds"),
    "objectives": (
        HEAD + "compare: {by: ▲optimizer}\nsearch: {scheduler: none, sampler: random}\n"
        "objective: [{metric: val_loss}, {metric: parameters}]",
        "compare: several objectives have no single best trial to compare; give one objective",
    ),
    "moments": (
        BY.replace("{int: [1, 3]}", "1") + "init_from: {search: a-1, optimizer_state: ▲true}",
        "init_from.optimizer_state: the moments of a warm start favour the optimizer that made th",
    ),
}  # fmt: skip


def load(folder: Path, text: str, *options: str) -> SearchSpace:
    file = folder / "space.yaml"
    file.write_text(text, encoding="utf-8")
    return load_space(file, [Override.parse(option) for option in options])


@pytest.mark.parametrize("name", MISTAKES)
def test_compare_names_the_place_of_a_mistake(tmp_path: Path, name: str) -> None:
    marked, message = MISTAKES[name]
    text, places = split_marks(marked)
    found = mistakes_of(tmp_path / "space.yaml", text)
    assert [(m.line, m.column) for m in found] == places, found
    assert message in found[0].message


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (BY, "optimizer"), (HEAD + "compare: {by: B}", "batch_size"),
        (HEAD + "compare: {by: batch_size}", "batch_size"),
        (HEAD + "compare: {by: n_layers}", "n_layers"),
        (BY + "init_from: {search: a-1}".replace("{int: [1, 3]}", "1"), "optimizer"),
        (BY.replace("{tokens: 90000,", "{flops: 9G,"), "optimizer"),
        *((BY + f"search: {{sampler: {s}}}", "optimizer") for s in ("gp", "cmaes", "qmc", "nsga2")),
        *((BY + f"search: {{scheduler: {s}}}", "optimizer") for s in ("hyperband", "bohb", "none")),
    ],
)  # fmt: skip
def test_compare_accepts(tmp_path: Path, text: str, name: str) -> None:
    assert load(tmp_path, text).compare == Compare(by=name)


def test_compare_changes_the_defaults_of_confirm(tmp_path: Path) -> None:
    assert load(tmp_path, BY).confirm == Confirm(top=1, seeds=5)
    assert load(tmp_path, BY + "confirm: {top: 3}").confirm == Confirm(top=3, seeds=5)
    assert load(tmp_path, BY, "confirm.seeds=8").confirm == Confirm(top=1, seeds=8)
    space = load(tmp_path, HEAD)
    assert space.confirm == Confirm(top=3, seeds=3)
    made = SearchSpace(hyperparameters=space.hyperparameters, compare=Compare(by="optimizer"))
    assert made.confirm == Confirm(top=1, seeds=5)
    assert SearchSpace.model_validate_json(made.model_dump_json()) == made
