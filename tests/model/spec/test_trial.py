"""Identity of a trial, and the updates of its reports."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model.spec.architecture import Architecture
from model.spec.data import DataConfig
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.trial import LONGEST_CHAIN, Continues, InitFrom, TrialSpec
from tests.conftest import MakeSpec


@pytest.fixture(scope="module")
def spec(make_spec: MakeSpec) -> TrialSpec:
    made = make_spec(steps=120, learning_rate=1e-3, eps=1e-12, weight_decay=1 / 3)
    assert isinstance(made, TrialSpec)
    return made


def reversed_fields(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_fields(value[key]) for key in reversed(value)}
    return value


def test_hash_is_stable_under_round_trip_and_field_order(spec: TrialSpec) -> None:
    assert len(spec.hash) == 64
    again = TrialSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert again.hash == spec.hash
    turned = json.loads(json.dumps(reversed_fields(spec.model_dump(mode="json"))))
    assert list(turned) != list(spec.model_dump())
    assert TrialSpec.model_validate(turned).hash == spec.hash


def test_hash_of_integers_equals_that_of_floats(make_spec: MakeSpec) -> None:
    """`1` and `1.0` in a search space mean the same trial."""
    assert make_spec(grad_clip=1).hash == make_spec(grad_clip=1.0).hash
    assert make_spec(batch_size=4).hash == make_spec(batch_size=4.0).hash


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(value, dict):
        return [leaf for key in value for leaf in leaves(value[key], (*path, key))]
    return [path]


def changed(value: Any, name: str) -> Any:
    field = Architecture.model_fields.get(name)
    choices = SYMBOL_TABLE[name].choices if name in SYMBOL_TABLE else ()
    if field and get_origin(field.annotation) is Literal:
        choices = get_args(field.annotation)
    if choices:
        return next(choice for choice in choices if choice != value)
    special = {
        "source": "python-stdlib",
        "files": ["other.txt"],
        "errors": "replace",
        "pattern": "gpt4",
        "n_heads": 4,
        "n_kv_heads": 1,
        "cycle_multiplier": 1.5,
        "epochs": value,
        "end_of_text": 1,
        "init_from": {"sha256": 64 * "0"},
    }
    if name in special:
        return special[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, int):
        return value * 2 or 3
    return value / 2 if value else 0.25


@pytest.mark.parametrize("has_encoder", [False, True])
def test_hash_changes_with_every_field(
    make_spec: MakeSpec, spec: TrialSpec, has_encoder: bool
) -> None:
    """Each leaf of the specification is changed alone, or with what the rules tie to it."""
    of_pairs = {"pairs", "source_field", "target_field", "n_encoder_layers", "source_length"}
    left_out = of_pairs
    if has_encoder:
        spec = make_spec(model={"n_encoder_layers": 2})
        left_out = {"pairs", "attend_across_documents", "field", "column", "separator"}
    plain = spec.model_dump(mode="json")
    seen = {spec.hash}
    names = leaves(plain)
    assert len(names) > 30
    for path in names:
        if path[-1] in {"epochs", "source", "hub", "hub_config", "split", "revision"}:
            continue  # tied to others: N_epoch follows; source, files and hub exclude each other
        if path in {("tokenizer", "file"), ("data", "max_row_characters"), ("continues",)}:
            continue  # these change no document; tested below
        if path[-1] in left_out:
            continue  # has no effect without an encoder, or with one
        other = json.loads(json.dumps(plain))
        at = other
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = changed(at[path[-1]], path[-1])
        if path[-1] == "seed":
            at["seed"] = 5
        h = other["hyperparameters"]
        h["epochs"] = math.ceil(h["total_steps"] * h["batch_size"] / other["train_sequences"])
        digest = TrialSpec.model_validate(other).hash
        assert digest not in seen, path
        seen.add(digest)


def test_hash_ignores_the_path_of_the_tokenizer(spec: TrialSpec) -> None:
    moved = spec.tokenizer.model_copy(update={"file": "elsewhere/tokenizer.json"})
    assert spec.model_copy(update={"tokenizer": moved}).hash == spec.hash


def continued(parent: TrialSpec, step: int = 40, **rows: Any) -> TrialSpec:
    """A trial that continues another one."""
    own = parent.model_dump(exclude={"continues"})
    own["hyperparameters"] |= rows
    return TrialSpec(**own, continues=Continues(spec=parent, step=step))


def test_hash_without_continues_is_unchanged(spec: TrialSpec) -> None:
    left_out: Any = {
        "continues": True, "tokenizer": {"file"}, "data": {"max_row_characters"},
    }  # fmt: skip
    plain = spec.model_dump(mode="json", exclude=left_out)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    assert spec.hash == hashlib.sha256(text.encode()).hexdigest()


def test_hash_depends_on_the_continued_trial(spec: TrialSpec) -> None:
    """On the step and on all of the chain, through JSON as well."""
    other = spec.model_copy(update={"seed": 8})
    specs = [spec, other, continued(spec), continued(spec, 80), continued(other)]
    specs += [continued(continued(s), 80, weight_decay=0.5) for s in (spec, other)]
    assert len({s.hash for s in specs}) == len(specs)
    for each in specs:
        again = TrialSpec.model_validate_json(each.model_dump_json())
        assert (again, again.hash) == (each, each.hash)


def test_hash_ignores_paths_of_tokenizers_in_the_chain(spec: TrialSpec) -> None:
    moved = spec.tokenizer.model_copy(update={"file": "elsewhere/tokenizer.json"})
    there = spec.model_copy(update={"tokenizer": moved})
    assert continued(continued(there), 80).hash == continued(continued(spec), 80).hash


def test_chain_begins_with_the_root(spec: TrialSpec) -> None:
    child = continued(spec, dropout=0.2)
    grandchild = continued(child, 80)
    assert spec.chain == (spec,)
    assert grandchild.chain == (spec, child, grandchild)


def test_long_chains_survive_json(make_spec: MakeSpec) -> None:
    """As in population-based training, up to a limit with an error message."""
    spec = make_spec(steps=100, reports=100)
    for step in range(1, LONGEST_CHAIN):
        spec = continued(spec, step, weight_decay=step / 100)
    again = TrialSpec.model_validate_json(spec.model_dump_json())
    assert again.hash == spec.hash
    assert len(again.chain) == LONGEST_CHAIN
    with pytest.raises(ValidationError, match="at most 64 links"):
        continued(spec, LONGEST_CHAIN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 41}, r"one of its own reports before the last, got step 41 of \[40, 80\]"),
        ({"step": 120}, "before the last, got step 120"),
        ({"batch_size": 2}, "batch_size must be that of the trial that is continued, got 2 inst"),
        ({"total_steps": 121}, "total_steps must be that"),
        ({"optimizer": "lion"}, "optimizer must be that .* got lion instead of adamw"),
        ({"ema_decay": 0.5}, "ema_decay must be that"),
        ({"target_sparsity": 0.5}, "target_sparsity must be that"),
        ({"prune_start_steps": 3}, "prune_start_steps must be that"),
        ({"prune_end_steps": 99}, "prune_end_steps must be that"),
        ({"prune_interval_steps": 3}, "prune_interval_steps must be that"),
    ],
)
def test_continued_trial_keeps_the_shape_of_its_state(
    spec: TrialSpec, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        continued(spec, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"micro_batch": 4}, {"validation_sequences": 8}, {"report_tokens": 32},
        {"data_fingerprint": "x"}, {"tokenizer_fingerprint": "x"},
        {"init_from": InitFrom(sha256=64 * "0")}, {"data": DataConfig(source="python-stdlib")},
    ],
)  # fmt: skip
def test_continued_trial_keeps_data_and_reports(spec: TrialSpec, change: dict[str, Any]) -> None:
    own = {**dict(spec), **change, "continues": Continues(spec=spec, step=40)}
    with pytest.raises(ValidationError, match=f"{next(iter(change))} must be that"):
        TrialSpec(**own)


def test_continued_trial_has_reported_since_it_continued(spec: TrialSpec) -> None:
    with pytest.raises(ValidationError, match=r"got step 40 of \[80\]"):
        continued(continued(spec))


def test_hash_distinguishes_adjacent_floats(make_spec: MakeSpec) -> None:
    one = make_spec(weight_decay=0.1)
    next_float = make_spec(weight_decay=math.nextafter(0.1, 1))
    assert one.hash != next_float.hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"micro_batch": 3}, "B must be a multiple of the micro-batch, got 4 and 3"),
        ({"micro_batch": 0}, "greater than or equal to 1"),
        ({"train_sequences": 1}, r"N_epoch must be .* = 480, got 1"),
        ({"init_from": {"sha256": "0" * 63}}, "should match pattern"),
        ({"init_from": {"sha256": "0" * 64, "optimizer_steps": -1}}, "greater than or equal to 0"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"seed": 2**63}, "less than 9223372036854775808"),
        ({"report_tokens": 0}, "greater than or equal to 1"),
        ({"validation_sequences": 0}, "greater than or equal to 1"),
        ({"tokenizer": {"vocab_size": 256}}, "greater than or equal to 257"),
        ({"note": "x"}, "Extra inputs"),
    ],
)
def test_spec_refuses(spec: TrialSpec, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrialSpec.model_validate({**spec.model_dump(), **change})


def test_spec_is_frozen(spec: TrialSpec) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        spec.seed = 3  # type: ignore[misc]


def test_spec_counts_tokens(spec: TrialSpec) -> None:
    assert spec.tokens_per_step == 4 * 8
    assert spec.budget_tokens == 120 * 4 * 8


@given(
    total=st.integers(1, 300),
    batch=st.sampled_from([2, 4, 6, 30]),
    report_tokens=st.integers(1, 20_000),
)
def test_report_steps_are_the_first_updates_past_each_rung(
    make_spec: MakeSpec, total: int, batch: int, report_tokens: int
) -> None:
    made = make_spec(steps=total, batch_size=batch)
    spec = made.model_copy(update={"report_tokens": report_tokens})
    steps = spec.report_steps
    assert list(steps) == sorted(set(steps))
    assert steps[0] >= 1
    assert steps[-1] == total
    # walk through the updates and note those during which a multiple of report_tokens is passed
    size = batch * 8
    expected = [
        step
        for step in range(1, total + 1)
        if step * size // report_tokens > (step - 1) * size // report_tokens or step == total
    ]
    assert list(steps) == expected


def test_report_steps_of_different_batches_are_at_the_same_tokens(make_spec: MakeSpec) -> None:
    small, large = make_spec(steps=60, batch_size=2), make_spec(steps=20, batch_size=6)
    rungs = [
        [step * spec.tokens_per_step for step in spec.model_copy(
            update={"report_tokens": 192}).report_steps]
        for spec in (small, large)
    ]  # fmt: skip
    assert rungs[0] == rungs[1] == list(range(192, 961, 192))


def test_hash_ignores_the_longest_row(spec: TrialSpec) -> None:
    """It changes no document."""
    data = DataConfig(files=("a.jsonl",))
    plain, longer = (
        spec.model_copy(update={"data": data.model_copy(update={"max_row_characters": limit})})
        for limit in (None, 10**9)
    )
    assert plain.hash == longer.hash
    assert TrialSpec.model_validate_json(longer.model_dump_json()) == longer
