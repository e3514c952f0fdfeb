from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.spec.hyperparameters import SYMBOL_TABLE
from tests.shipped import NAMES, load_shipped
from tests.tuner.results.random_trials import FACTS, HEAD
from tuner.results.range_edit import End, cut, entry, from_unit, is_possible, moved, unit
from tuner.space.parameter import Choice, Constant, Parameter, Range, Value
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space
from tuner.texts.formatting import written

ENDS: tuple[End, End] = ("lower", "upper")


def parameter(name: str, kind: str, *values: float, of: str | None = None) -> Parameter:
    if kind in {"choice", "grid"}:
        return Parameter(name=name, distribution=Choice(kind=kind, values=values), fraction_of=of)
    span = Range(kind=kind, low=values[0], high=values[1])  # type: ignore[arg-type]
    return Parameter(name=name, distribution=span, fraction_of=of)


@given(
    st.sampled_from(["uniform", "log"]), st.floats(1e-6, 1e3), st.floats(1.01, 1e6), st.floats(0, 1)
)
def test_unit_and_back(kind: str, low: float, ratio: float, place: float) -> None:
    span = Range(kind=kind, low=low, high=low * ratio)  # type: ignore[arg-type]
    assert unit(span, from_unit(span, place)) == pytest.approx(place, abs=1e-6)
    assert (unit(span, 0.0), unit(span, math.inf)) == (0, 1)


@pytest.mark.parametrize(
    ("given_", "end", "expected"),
    [
        # a third of the width further, by ratio or by difference
        (("max_learning_rate", "log", 1e-4, 1e-1), "upper", (1e-3, 1)),
        (("max_learning_rate", "log", 1e-4, 1e-1), "lower", (1e-5, 1e-2)),
        (("max_learning_rate", "log", 1e-3, 8e-3), "upper", (2e-3, 1.6e-2)),
        (("label_smoothing", "uniform", 0.1, 0.4), "upper", (0.2, 0.5)),
        (("warmup_steps", "int", 10, 40), "upper", (20, 50)),
        (("warmup_steps", "int", 1, 2), "lower", (0, 2)),
        (("warmup_steps", "int_log", 10, 80), "upper", (20, 160)),
        # up to a limit of the symbol table, or most of the way if it is excluded
        (("dropout", "uniform", 0.1, 0.4), "lower", (0, 0.3)),
        (("dropout", "uniform", 0.05, 0.35), "lower", (0, 0.25)),
        (("beta1", "uniform", 0.8, 0.95), "upper", (0.85, 0.98)),
        (("grad_clip", "uniform", 0.3, 3.0), "lower", (0.1, 2.1)),  # 0 would turn it off
        (("max_learning_rate", "log", 10, 100), "upper", None),
        (("dropout", "uniform", 0.0, 0.3), "lower", None),
    ],
)
def test_moved_range(
    given_: tuple[str, str, float, float], end: End, expected: tuple[float, float] | None
) -> None:
    new = moved(parameter(*given_), end)
    if expected is None:
        assert new is None
    else:
        assert isinstance(new, Range)
        assert new.kind == given_[1]
        assert (new.low, new.high) == pytest.approx(expected, rel=0.02)


def test_moved_share_stays_a_share() -> None:
    share = parameter("min_learning_rate", "log", 0.01, 0.5, of="max_learning_rate")
    assert moved(share, "upper") == Range(kind="log", low=0.037, high=1.0)
    cycle = parameter("cycle_steps", "uniform", 1.0, 2.0, of="total_steps")
    assert moved(cycle, "upper") == Range(kind="uniform", low=1.3, high=2.3)
    whole = parameter("warmup_steps", "uniform", 0.0, 1.0, of="total_steps")
    assert moved(whole, "upper") is None


@pytest.mark.parametrize(
    ("name", "values", "end", "expected"),
    [
        ("batch_size", (8, 16, 32), "upper", (8, 16, 32, 64)),
        ("batch_size", (32, 8, 16), "lower", (4, 8, 16, 32)),
        ("batch_size", (1, 2), "lower", None),
        ("batch_size", (8, 12), "upper", (8, 12, 16)),
        ("beta2", (0.95, 0.99, 0.999), "upper", (0.95, 0.99, 0.999, 0.9999)),
        ("beta2", (0.9, 0.95), "lower", (0.8, 0.9, 0.95)),
        ("weight_decay", (0.01, 0.1), "lower", (0.001, 0.01, 0.1)),
        ("dropout", (0.0, 0.1, 0.2), "upper", (0.0, 0.1, 0.2, 0.3)),
        ("dropout", (0.0, 0.1, 0.2), "lower", None),
        ("grad_clip", (0, 1.0), "lower", None),
        ("qk_norm", (True, False), "upper", None),
        ("schedule", ("cosine", "linear"), "upper", None),
        ("n_layers", (2, 4), "upper", (2, 4, 8)),
        ("n_layers", (500, 1000), "upper", None),
    ],
)
def test_moved_choice(
    name: str, values: tuple[Value, ...], end: End, expected: tuple[Value, ...] | None
) -> None:
    new = moved(Parameter(name=name, distribution=Choice(kind="grid", values=values)), end)
    if expected is None:
        assert new is None
    else:
        assert isinstance(new, Choice)
        assert new.kind == "grid"
        assert new.values == pytest.approx(expected)
        assert [type(v) for v in new.values] == [type(v) for v in expected]


def test_constant_has_no_end_to_move() -> None:
    assert moved(Parameter(name="beta1", distribution=Constant(value=0.9)), "upper") is None


def test_cut_keeps_what_lies_between() -> None:
    assert cut(Range(kind="log", low=1e-4, high=1.0), -math.inf, 0.1) == Range(
        kind="log", low=1e-4, high=0.1
    )
    assert cut(Range(kind="int", low=1, high=9), 2.5, 6.5) == Range(kind="int", low=3, high=6)
    assert cut(Range(kind="uniform", low=1, high=2), 3, 4) is None
    choice = Choice(kind="choice", values=(32, 8, 16))
    assert cut(choice, -math.inf, 20) == Choice(kind="choice", values=(8, 16))
    assert cut(choice, 40, math.inf) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-4, "1e-4"), (0.03, "0.03"), (1.5e-5, "1.5e-5"), (16, "16"), (0.0, "0"), (0.9999, "0.9999"),
     (20000.0, "2e4"), ("adamw", "adamw"), (True, "true"), (1.0, "1")],
)  # fmt: skip
def test_written_as_in_a_file(value: Value, text: str) -> None:
    assert written(value) == text


# a specification with LoRA needs the weights that it starts from
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "lora"])
def test_every_moved_entry_is_one_that_a_space_may_have(name: str, tmp_path: Path) -> None:
    """What is proposed for any end of any range loads, and says the same when it is read back."""
    space = load_shipped(name, tmp_path / "shipped")
    proposals = 0
    for p in space.searched:
        for end in ENDS:
            new = moved(p, end)
            if new is None:
                continue
            section = "hyperparameters" if p.name in SYMBOL_TABLE else "model"
            if section == "model" and not is_possible(
                space, p, new, space.spec(space.defaults(), FACTS, 0)
            ):
                continue
            text = f"{section}:\n  {entry(p, new)}\n"
            if p.fraction_of or p.when:
                others = {n for n in (p.fraction_of, *p.when) if n}
                text += "".join(f"  {line}\n" for line in _lines(space, others))
            text = text if section == "hyperparameters" else f"{_without_model()}{text}"
            base = HEAD if section == "hyperparameters" else ""
            (tmp_path / "space.yaml").write_text(base + text, encoding="utf-8")
            again = load_space(tmp_path / "space.yaml")
            (read,) = [q for q in again.searched if q.name == p.name]
            assert read.distribution == new
            assert read.when == p.when
            proposals += 1
    assert proposals >= (0 if name in {"attention"} else 3)


def _lines(space: SearchSpace, names: set[str]) -> list[str]:
    return [
        entry(p, p.distribution) for p in space.parameters if p.name in names and not p.alternative
    ]


def _without_model() -> str:
    return "\n".join(line for line in HEAD.splitlines() if not line.startswith("model:")) + "\n"


def test_possible_only_where_all_rules_hold(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        HEAD.replace("d_model: 16", "d_model: {choice: [16, 32]}")
        + """engine: {micro_batch: 8}
hyperparameters:
  B: {choice: [8, 16]}
  α_max: {log: [1e-3, 1e-2]}
  α_min: {uniform: [1e-4, 1e-3]}
""",
        encoding="utf-8",
    )
    space = load_space(tmp_path / "space.yaml")
    spec = space.spec(space.defaults(), FACTS, 0)
    by_name = {p.name: p for p in space.searched}

    def possible(name: str, end: End) -> bool:
        new = moved(by_name[name], end)
        return new is not None and is_possible(space, by_name[name], new, spec)

    assert possible("batch_size", "upper")
    assert not possible("batch_size", "lower")  # 4 is no multiple of the micro-batch
    assert possible("max_learning_rate", "upper")
    assert not possible("max_learning_rate", "lower")  # α_min may be 1e-3
    assert possible("d_model", "upper")
    odd = Choice(kind="choice", values=(17, 32))  # not a multiple of the heads
    assert not is_possible(space, by_name["d_model"], odd, spec)
