"""What a space means: draws, defaults, specifications, shapes, expected cost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.errors import SpaceError
from tuner.schedulers.expected_tokens import expected_tokens
from tuner.space.combinations import combinations, count
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import Choice, Constant, Parameter, Range, Value
from tuner.space.parameter_set import ParameterSet
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space

FACTS = DataFacts(300, 100_000, 10_000, "data", "tokenizer")
BUDGET = "budget: {tokens: 20000, reports: 4}\n"


def load(folder: Path, text: str) -> SearchSpace:
    (folder / "space.yaml").write_text(text, encoding="utf-8")
    return load_space(folder / "space.yaml")


def any_draw(space: SearchSpace, data: st.DataObject) -> dict[str, Value]:
    """A draw anywhere inside the ranges, ends included."""
    drawn: dict[str, Value] = {}
    for p in space.parameters:
        d = p.distribution
        if isinstance(d, Constant) or not space.is_drawn(p, drawn):
            continue
        if isinstance(d, Choice):
            drawn[p.label] = data.draw(st.sampled_from(d.values))
        elif d.is_whole:
            drawn[p.label] = data.draw(st.integers(int(d.low), int(d.high)))
        else:
            drawn[p.label] = data.draw(st.floats(d.low, d.high))
    return drawn


def is_inside(parameter: Parameter, value: Value) -> bool:
    d = parameter.distribution
    if isinstance(d, Range):
        return d.low <= float(value) <= d.high
    return isinstance(d, Choice) and value in d.values


# What may stand for some entries; a file takes one of each, so that rules between rows are met.
OPTIONS: dict[str, list[str]] = {
    "α_max": ["0.01", "{log: [1e-5, 1]}", "{uniform: [0.2, 0.3]}"],
    "α_min": ["{fraction_of: α_max, log: [1e-3, 1]}", "{fraction_of: α_max, value: 0}", "1e-6"],
    "T_warmup": ["0", "{int: [0, 3]}", "{fraction_of: T_total, uniform: [0, 1]}"],
    "T_cycle": ["", "{fraction_of: T_total, uniform: [1, 2]}"],
    "B": ["8", "{choice: [4, 8, 16]}", "{grid: [8, 24]}", "{int: [1, 20]}"],
    "optimizer": ["adamw", "{choice: [sgd, momentum, adamw]}", "{grid: [adam, momentum]}"],
    "γ": ["", "{uniform: [0.1, 0.9], when: {optimizer: momentum}}"],
    "τ": ["", "off", "{choice: [off, 1.0]}", "{log: [0.1, 10]}"],
    "p_drop": ["", "{uniform: [0, 0.5]}", "{choice: [0.0, 0.1]}"],
}
SIZES = ["", "d_model: {choice: [32, 64]}", "context_length: {choice: [8, 16]}, n_layers: 1"]
BUDGETS = ["budget: {tokens: 50000}", "T_total: {int: [10, 50]}", "N_epoch: {choice: [1, 2]}"]


@pytest.mark.slow
@settings(max_examples=60)
@given(data=st.data())
def test_space_every_draw_makes_a_specification(tmp_path: Path, data: st.DataObject) -> None:
    """A file that is accepted holds no draw that the symbol table refuses."""
    chosen = {name: data.draw(st.sampled_from(options)) for name, options in OPTIONS.items()}
    budget = data.draw(st.sampled_from(BUDGETS))
    rows = [f"  {name}: {text}" for name, text in chosen.items() if text]
    rows += [] if budget.startswith("budget") else [f"  {budget}"]
    text = "\n".join(
        [
            "hyperparameters:",
            *rows,
            budget if budget.startswith("budget") else "",
            f"model: {{{data.draw(st.sampled_from(SIZES))}}}",
        ]
    )
    try:
        space = load(tmp_path, text)
    except SpaceError as error:
        # the only reasons that these options can give
        assert any(why in str(error) for why in ("no effect", "never")), error
        return
    spec = space.spec(any_draw(space, data), FACTS, seed=1)
    assert spec.hyperparameters.batch_size % spec.micro_batch == 0
    assert spec.budget_tokens <= space.budget_tokens(FACTS) + spec.tokens_per_step
    assert spec.architecture in space.shapes(FACTS.vocab_size)
    first = space.defaults()
    assert all(is_inside(p, first[p.label]) for p in space.searched)
    space.spec({k: v for k, v in first.items() if k in _active(space, first)}, FACTS, seed=1)


def _active(space: SearchSpace, drawn: dict[str, Value]) -> set[str]:
    return {p.label for p in space.searched if space.is_drawn(p, drawn)}


def test_space_spec_resolves_shares_and_keeps_constants(tmp_path: Path) -> None:
    space = load(
        tmp_path,
        BUDGET + "hyperparameters:\n"
        "  α_max: {log: [1e-4, 1e-1]}\n"
        "  α_min: {fraction_of: α_max, value: 0.5}\n"
        "  T_warmup: {fraction_of: T_total, uniform: [0, 0.5]}\n"
        "  β2: 0.99\n"
        "model: {context_length: 32}\n",
    )
    drawn: dict[str, Value] = {"max_learning_rate": 0.02, "warmup_steps/total_steps": 0.25}
    h = space.spec(drawn, FACTS, seed=0).hyperparameters
    assert h.total_steps == math.ceil(20_000 / (16 * 32)) == 40
    assert (h.max_learning_rate, h.min_learning_rate, h.warmup_steps) == (0.02, 0.01, 10)
    assert (h.beta2, h.epochs) == (0.99, math.ceil(40 * 16 / (99_999 // 32)))


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("budget: {tokens: 10240}", 10),
        ("hyperparameters: {T_total: 7}", 7),
        ("hyperparameters: {N_epoch: 2}", 2 * (99_999 // 64) // 16),
    ],
)
def test_space_budget_in_tokens_steps_or_epochs(tmp_path: Path, text: str, steps: int) -> None:
    spec = load(tmp_path, text).spec({}, FACTS, seed=0)
    assert spec.hyperparameters.total_steps == steps


def test_space_condition_may_ask_for_off(tmp_path: Path) -> None:
    space = load(
        tmp_path,
        BUDGET + "hyperparameters:\n"
        "  τ: {choice: [off, 1.0]}\n"
        "  λ: {uniform: [0.2, 0.3], when: {τ: off}}\n"
        "  p_drop: {uniform: [0.2, 0.3], when: {logit_soft_cap: [off]}}\n",
    )
    decay = space.hyperparameters["weight_decay"]
    assert space.is_drawn(decay, {"grad_clip": 0})
    assert not space.is_drawn(decay, {"grad_clip": 1.0})
    assert space.is_drawn(space.hyperparameters["dropout"], {})


def test_space_condition_follows_the_draw(tmp_path: Path) -> None:
    space = load(
        tmp_path,
        BUDGET + "hyperparameters:\n"
        "  γ: {uniform: [0.1, 0.2], when: {optimizer: momentum}}\n"
        "  optimizer: {choice: [adamw, momentum]}\n",
    )
    assert [p.name for p in space.parameters] == ["optimizer", "momentum"]
    momentum = space.parameters[1]
    assert space.is_drawn(momentum, {"optimizer": "momentum"})
    assert not space.is_drawn(momentum, {"optimizer": "adamw"})
    spec = space.spec({"optimizer": "adamw"}, FACTS, seed=0)
    assert spec.hyperparameters.momentum == 0.9


@pytest.mark.parametrize(
    ("rows", "default", "is_moved"),
    [
        ("α_max: {log: [1e-4, 1e-1]}", {"max_learning_rate": 1e-3}, False),
        ("α_max: {log: [1e-2, 1e-1]}", {"max_learning_rate": 1e-2}, True),
        ("B: {choice: [64, 32]}", {"batch_size": 32}, True),
        ("α_min: {fraction_of: α_max, log: [0.2, 0.5]}",
         {"min_learning_rate/max_learning_rate": 0.2}, True),
        # what the default is follows from other rows: T_total is 20 here, T_warmup 1
        ("T_warmup: {int: [0, 20]}", {"warmup_steps": 1}, False),
        ("T_warmup: {int: [2, 20]}", {"warmup_steps": 2}, True),
        ("B: 8, T_warmup: {int: [0, 20]}", {"warmup_steps": 2}, False),
        ("T_cycle: {fraction_of: T_warmup, uniform: [1, 20]}",
         {"cycle_steps/warmup_steps": 20}, False),
        ("T_cycle: {fraction_of: T_warmup, uniform: [1, 9]}",
         {"cycle_steps/warmup_steps": 9}, True),
        ("schedule: wsd, T_cooldown: {fraction_of: T_warmup, uniform: [0, 8]}",
         {"cooldown_steps/warmup_steps": 4}, False),
        ("α_max: 0.01, α_min: {log: [1e-5, 1e-2]}", {"min_learning_rate": 1e-3}, False),
        ("p_drop: 0.2, p_attn: {choice: [0.0, 0.1, 0.2]}", {"attention_dropout": 0.2}, False),
        ("ε_ls: 0.1, p_drop: {fraction_of: ε_ls, uniform: [0, 1]}",
         {"dropout/label_smoothing": 0}, False),
    ],
)  # fmt: skip
def test_space_defaults_move_into_the_ranges(
    tmp_path: Path, rows: str, default: dict[str, Any], is_moved: bool
) -> None:
    space = load(tmp_path, BUDGET + f"hyperparameters: {{{rows}}}")
    assert space.defaults() == pytest.approx(default)
    assert space.moved() == (space.searched if is_moved else [])


def test_space_micro_batch_divides_every_batch(tmp_path: Path) -> None:
    for text, expected in (("8", 8), ("{choice: [24, 36]}", 12), ("512", 32), ("{int: [7, 9]}", 1)):
        space = load(tmp_path, BUDGET + f"hyperparameters: {{B: {text}}}")
        assert space.micro_batch == expected


@pytest.mark.parametrize(
    ("scheduler", "ninths"),
    [
        ("none", 10 * 9),
        ("asha", 9 + 9 * 1 + 3 * 2 + 1 * 6),
        # the n-th of nine continues with the chance ⌈n/3⌉/n: 4.2 do, and 2.3 of these four
        ("asha, asha: stop", 9 + 9 * 1 + 4.2036 * 2 + 2.3333 * 6),
        # brackets: of 9 trials with rungs at 1 and 3, then of 1 with a rung at 3
        ("hyperband", 9 + 9 * 1 + 3 * 2 + 1 * 6),
        ("bohb, trials: 15", 9 + 9 * 1 + 3 * 2 + 1 * 6 + 5 * 3 + 1 * 6),
        ("median", 9 + 9 * (9 - 3)),
        ("pbt", 10 * 9),
        ("pb2", 10 * 9),
        ("none, max_tokens: 5000", 5),
        ("asha, trials: 9, defaults: raced", 9 * 1 + 3 * 2 + 1 * 6),
        ("asha, trials: 9, defaults: off", 9 * 1 + 3 * 2 + 1 * 6),
        ("asha, trials: 2, defaults: off", 9),  # one trains to the end
    ],
)  # fmt: skip
def test_space_expected_tokens(tmp_path: Path, scheduler: str, ninths: float) -> None:
    """Of the defaults, which nothing stops, and nine others; of nine reports each."""
    trials = "" if "trials" in scheduler else "trials: 10, "
    text = (
        "confirm: off\nbudget: {tokens: 9000, reports: 9}\nhyperparameters: {λ: {log: [0.1, 1]}}\n"
    )
    space = load(tmp_path, text + f"search: {{{trials}scheduler: {scheduler}}}")
    full, expected = expected_tokens(space, FACTS)
    assert full == space.search.trials * 9000
    assert expected == pytest.approx(1000 * ninths, rel=2e-3)


def test_space_expected_tokens_count_the_confirmation(tmp_path: Path) -> None:
    text = "budget: {tokens: 9000, reports: 9}\nsearch: {trials: 9, scheduler: none}\n"
    confirmed = load(tmp_path, text + "confirm: {top: 2, seeds: 4}")
    assert expected_tokens(confirmed, FACTS) == ((9 + 2 * 4) * 9000,) * 2
    several = load(tmp_path, text + "objective: [{metric: val_loss}, {metric: parameters}]")
    assert expected_tokens(several, FACTS) == (9 * 9000,) * 2


OF_SIZES = """
model: {d_model: {choice: [16, 64]}, context_length: {choice: [16, 32]}}
hyperparameters: {B: {choice: [4, 8]}, T_warmup: {fraction_of: T_total, value: 0.1}}
budget: {flops: 2G, reports: 4}
search: {trials: 8, scheduler: none}
confirm: off
"""


def test_space_affords_equal_compute_with_every_architecture(tmp_path: Path) -> None:
    """Reports lie at equal shares; only the last update of a report is rounded up."""
    space = load(tmp_path, OF_SIZES)
    specs = [
        space.spec({"d_model": d, "context_length": t, "batch_size": b}, FACTS, 0)
        for d in (16, 64) for t in (16, 32) for b in (4, 8)
    ]  # fmt: skip
    assert len({spec.hyperparameters.total_steps for spec in specs}) > 2
    for spec in specs:
        each = spec.architecture.flops_per_token
        slack = spec.tokens_per_step * each
        assert 2e9 <= spec.budget_tokens * each < 2e9 + slack
        assert len(spec.report_steps) == 4
        for number, step in enumerate(spec.report_steps, 1):
            share = number * 0.5e9
            assert share <= step * spec.tokens_per_step * each < share + slack + number * each
        assert spec.hyperparameters.warmup_steps == round(0.1 * spec.hyperparameters.total_steps)
    assert space.lengths(FACTS) == (5 * 10**8, 2 * 10**9)
    most = [space.affordable(shape) for shape in space.shapes(FACTS.vocab_size)]
    assert space.budget_tokens(FACTS) == max(most)
    assert expected_tokens(space, FACTS)[0] == pytest.approx(8 * sum(most) / 4, abs=8)
    (low, high), _ = space.steps_and_epochs(FACTS, 16)
    steps = [s.hyperparameters.total_steps for s in specs if s.architecture.context_length == 16]
    assert (low, high) == (min(steps), max(steps))
    shape = specs[-1].architecture
    (low, high), _ = space.steps_and_epochs(FACTS, 32, shape)
    same = [s.hyperparameters.total_steps for s in specs if s.architecture == shape]
    assert (low, high) == (min(same), max(same))


def test_recorded_space_names_a_budget_in_flops(tmp_path: Path) -> None:
    text = load(tmp_path, OF_SIZES).model_dump_json()
    assert SearchSpace.model_validate_json(text).budget.flops == 2 * 10**9


def test_corpus_facts_refuse_a_context_longer_than_the_text() -> None:
    assert FACTS.sequences(64) == (99_999 // 64, 9_999 // 64)
    with pytest.raises(ValueError, match="longer than the validation text of 10000 tokens"):
        FACTS.sequences(10_000)


def test_space_grid_begins_at_the_defaults(tmp_path: Path) -> None:
    """The first trial runs the defaults, and must not take another point's turn."""
    space = load(
        tmp_path,
        BUDGET + "hyperparameters:\n"
        "  B: {grid: [8, 16]}\n"
        "  optimizer: {grid: [momentum, adamw]}\n"
        "  γ: {grid: [0.5, 0.8], when: {optimizer: momentum}}\n",
    )
    assert space.grid[0] == {"batch_size": 16, "optimizer": "adamw"}
    assert len(space.grid) == 2 * (2 + 1)  # γ counts with momentum only
    assert len({tuple(point.items()) for point in space.grid}) == 6
    assert load(tmp_path, BUDGET).grid == [{}]


@given(st.data())
@settings(max_examples=30)
def test_count_is_the_number_of_combinations(data: st.DataObject) -> None:
    """Also with conditions on what is drawn, is constant, or has no options."""
    fields = ("beta1", "weight_decay", "grad_clip", "momentum", "label_smoothing")
    parameters = []
    for i, name in enumerate(fields):
        values = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4, unique=True)))
        before = data.draw(st.lists(st.sampled_from(fields[:i]), max_size=2)) if i else []
        when = {n: tuple(data.draw(st.sets(st.integers(1, 4), min_size=1))) for n in before}
        kind = data.draw(st.sampled_from(["choice", "grid"]))
        distribution = Choice(kind=kind, values=values)
        parameters.append(Parameter(name=name, distribution=distribution, when=when))
    space = ParameterSet(parameters)
    options = {p.label: p.distribution.possible_values() or [] for p in parameters}
    chosen = {k: options[k] for k in data.draw(st.sets(st.sampled_from(sorted(options))))}
    assert count(space, chosen) == len(list(combinations(space, chosen)))


def test_space_shapes_follow_conditions(tmp_path: Path) -> None:
    space = load(
        tmp_path,
        BUDGET + "model:\n"
        "  d_model: {choice: [64, 96]}\n"
        "  n_heads: {choice: [3, 6], when: {d_model: 96}}\n",
    )
    shapes = [(shape.d_model, shape.n_heads) for shape in space.shapes(300)]
    assert shapes == [(64, 4), (96, 3), (96, 6)]  # 64 keeps the default of 4 heads


ALTERNATIVES = """\
hyperparameters:
  optimizer: {choice: [adamw, lion, lars, sgd]}
  α_max:
    - {log: [1e-4, 1e-2], when: {optimizer: [adamw]}}
    - {log: [1, 30], when: {optimizer: lars}}
    - {value: 1e-5, when: {optimizer: lion}}
  α_min: {fraction_of: α_max, value: 0.5}
model:
  d_model: {choice: [64, 96]}
  n_heads:
    - {choice: [2, 4], when: {d_model: 64}}
    - {value: 3, when: {d_model: 96}}
"""


def test_space_alternatives_are_drawn_apart(tmp_path: Path) -> None:
    """Each has a label of its own, so that a sampler learns nothing of one from the others."""
    space = load(tmp_path, BUDGET + ALTERNATIVES)
    labels = ["d_model", "optimizer", "n_heads[1]", "max_learning_rate[1]", "max_learning_rate[2]"]
    assert [p.label for p in space.searched] == labels
    drawn: dict[str, Value] = {"max_learning_rate[1]": 2e-3, "max_learning_rate[2]": 20.0}
    for optimizer, rate in (("adamw", 2e-3), ("lars", 20.0), ("lion", 1e-5), ("sgd", 1e-3)):
        h = space.spec({**drawn, "optimizer": optimizer}, FACTS, seed=0).hyperparameters
        assert (h.max_learning_rate, h.min_learning_rate) == (rate, rate / 2)
    shapes = [(shape.d_model, shape.n_heads) for shape in space.shapes(300)]
    assert shapes == [(64, 2), (64, 4), (96, 3)]
    assert space.defaults()["max_learning_rate[1]"] == 1e-3
    assert space.possible("n_heads") == [2, 4, 3, 4]  # the default counts: no when may hold


def test_space_grid_takes_alternatives_in_turn(tmp_path: Path) -> None:
    space = load(
        tmp_path,
        BUDGET + "hyperparameters:\n"
        "  optimizer: {grid: [sgd, adamw]}\n"
        "  B:\n"
        "    - {grid: [8, 16], when: {optimizer: adamw}}\n"
        "    - {grid: [32, 64, 128], when: {optimizer: sgd}}\n",
    )
    assert len(space.grid) == 5
    assert space.grid[0] == {"optimizer": "adamw", "batch_size[1]": 16}
    assert space.micro_batch == 8


def test_space_many_alternatives_are_few_combinations(tmp_path: Path) -> None:
    """Their product would be far beyond what can be checked."""
    optimizers = ["adamw", "adam", "sgd", "nesterov", "lars", "lamb", "lion", "muon", "rmsprop"]
    rates = "".join(f"    - {{log: [1e-4, 1e-2], when: {{optimizer: {o}}}}}\n" for o in optimizers)
    space = load(
        tmp_path,
        BUDGET + f"hyperparameters:\n  optimizer: {{choice: [{', '.join(optimizers)}]}}\n"
        f"  α_max:\n{rates}  α_min: {{fraction_of: α_max, uniform: [0, 1]}}\n",
    )
    assert len(space.searched) == len(optimizers) + 2


def test_space_constant_with_a_condition_that_fails_keeps_its_default(tmp_path: Path) -> None:
    space = load(
        tmp_path,
        BUDGET + "hyperparameters:\n"
        "  schedule: {choice: [cosine, constant]}\n"
        "  optimizer: {value: momentum, when: {schedule: constant}}\n"
        "  γ: {uniform: [0.1, 0.2], when: {optimizer: momentum}}\n",
    )
    drawn: dict[str, Value] = {"schedule": "cosine", "momentum": 0.15}
    assert not space.is_drawn(space.hyperparameters["momentum"], drawn)
    h = space.spec(drawn, FACTS, seed=0).hyperparameters
    assert (h.optimizer, h.momentum) == ("adamw", 0.9)
    h = space.spec(drawn | {"schedule": "constant"}, FACTS, seed=0).hyperparameters
    assert (h.optimizer, h.momentum) == ("momentum", 0.15)


def test_space_defaults_of_shares_of_zero(tmp_path: Path) -> None:
    """Any share of an ε_ls of 0 is the default of p_drop: the middle is taken."""
    space = load(
        tmp_path, BUDGET + "hyperparameters: {p_drop: {fraction_of: ε_ls, uniform: [0, 1]}}"
    )
    assert space.defaults() == {"dropout/label_smoothing": 0.5}
    assert not space.moved()
    share = "{fraction_of: p_drop, uniform: [0, 1]}"
    space = load(tmp_path, BUDGET + f"hyperparameters: {{λ: {share}}}")
    assert space.moved() == space.searched  # 0.1 is no share of 0


def test_space_defaults_that_follow_from_the_corpus_count_as_moved(tmp_path: Path) -> None:
    epochs = "hyperparameters: {{N_epoch: {{choice: [1, 2]}}, T_warmup: {}}}"
    space = load(tmp_path, epochs.format("{int: [0, 60]}"))
    assert space.defaults() == {"epochs": 2, "warmup_steps": 30}
    assert [p.name for p in space.moved()] == ["warmup_steps"]
    space = load(tmp_path, epochs.format("{fraction_of: T_total, uniform: [0, 0.2]}"))
    assert space.defaults() == {"epochs": 2, "warmup_steps/total_steps": 0.05}
    assert not space.moved()


def test_space_defaults_of_what_asks_for_itself(tmp_path: Path) -> None:
    """n_kv_heads follows from n_heads, which depends on n_kv_heads: any value will do."""
    space = load(
        tmp_path,
        BUDGET + "model:\n  n_kv_heads: {choice: [1, 2]}\n"
        "  n_heads: {choice: [2, 8], when: {n_kv_heads: 2}}\n",
    )
    assert all(is_inside(p, space.defaults()[p.label]) for p in space.searched)
    space.spec(space.defaults(), FACTS, seed=0)


def test_space_steps_and_epochs_span_all_trials(tmp_path: Path) -> None:
    space = load(
        tmp_path,
        "budget: {tokens: 102400}\nhyperparameters: {B: {choice: [8, 32, 16]}}\n"
        "model: {context_length: {choice: [32, 64]}}",
    )
    assert space.steps_and_epochs(FACTS, 64) == ((50, 200), (2, 2))
    assert space.steps_and_epochs(FACTS, 32) == ((100, 400), (2, 2))


def test_space_steps_and_epochs_of_alternative_context_lengths(tmp_path: Path) -> None:
    """Only the trials of a length count: those of others take more or fewer steps."""
    space = load(
        tmp_path,
        "budget: {tokens: 102400}\nhyperparameters: {B: {choice: [8, 16]}}\n"
        "model:\n  d_model: {choice: [32, 64]}\n  context_length:\n"
        "    - {choice: [16, 32, 64], when: {d_model: 32}}\n"
        "    - {value: 128, when: {d_model: 64}}\n",
    )
    steps = {length: space.steps_and_epochs(FACTS, length)[0] for length in (16, 32, 64, 128)}
    assert steps == {16: (400, 800), 32: (200, 400), 64: (100, 200), 128: (50, 100)}


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ("λ: {log: [1e-4, 0.03]}", "log-uniform 0.0001 … 0.03"),
        ("λ: {uniform: [0, 1]}", "uniform 0 … 1"),
        ("B: {choice: [8, 16, 32]}", "one of 8, 16, 32"),
        ("B: {grid: [8, 16]}", "each of 8, 16"),
        ("T_warmup: {int: [0, 5]}", "whole, uniform 0 … 5"),
        ("T_warmup: {int_log: [1, 5]}", "whole, log-uniform 1 … 5"),
        ("β1: 0.9", "0.9"),
        ("optimizer: sgd", "sgd"),
        ("α_min: {fraction_of: α_max, log: [0.01, 0.5]}", "0.01 … 0.5 × α_max, log-uniform"),
        ("α_min: {fraction_of: α_max, value: 0.1}", "0.1 × α_max"),
        ("α_min: {fraction_of: α_max, choice: [0.1, 0.2]}", "one of 0.1, 0.2 × α_max"),
    ],
)
def test_space_describes_distribution(tmp_path: Path, rows: str, text: str) -> None:
    space = load(tmp_path, BUDGET + f"hyperparameters: {{{rows}}}")
    assert space.parameters[0].describe() == text


def test_space_expected_tokens_of_steps_and_epochs(tmp_path: Path) -> None:
    none = "confirm: off\nsearch: {trials: 2, scheduler: none}\n"
    steps = load(tmp_path, none + "hyperparameters: {T_total: {int: [10, 30]}, B: 8}")
    assert expected_tokens(steps, FACTS)[0] == 2 * 20 * 8 * 64
    assert steps.budget_tokens(FACTS) == 30 * 8 * 64
    epochs = load(tmp_path, none + "hyperparameters: {N_epoch: {choice: [1, 3]}}")
    assert expected_tokens(epochs, FACTS)[0] == 2 * 2 * (99_999 // 64) * 64
    assert epochs.budget_tokens(FACTS) == 3 * (99_999 // 64) * 64
