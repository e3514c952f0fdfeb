from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from model.checkpoints.store import CheckpointRef
from model.corpus.corpus import Corpus
from model.device import compiler
from model.engine.engine import Engine
from model.engine.report import METRICS, Report, Status
from model.errors import CompileError
from model.spec.trial import Continues, TrialSpec
from tests.conftest import MakeSpec
from tests.tuner.tracking.recorded import RecordedSearch
from tuner.errors import RecordError
from tuner.home.home import Home
from tuner.journal.fold import Search
from tuner.tracking.records import TrialRecord
from tuner.trained.recorded_trials import RecordedTrial
from tuner.trained.replay import (
    Difference,
    ReplayResult,
    Verdict,
    _check_outcome,
    _compiler,
    _retrain,
    _where,
    compare,
    judge,
)

Tokens = tuple[np.ndarray, np.ndarray]
CPU = {"device": "cpu: any", "dtype": "float32"}


def report(step: int, loss: float = 3.0, status: Status = Status.TRAINING) -> Report:
    return Report("0", status, step, step * 32, loss, 3.5, 1.0, 0.01)


def recorded(*reports: Report) -> dict[int, dict[str, float]]:
    return {r.step: r.metrics() for r in reports}


def test_compare_finds_nothing_in_equal_reports() -> None:
    reports = [report(1), report(2, 2.5), report(3, math.nan, Status.DIVERGED)]
    assert compare(recorded(*reports), reports) == []


def test_compare_sees_the_last_bit() -> None:
    record = recorded(report(1), report(2))
    record[2]["grad_norm"] = math.nextafter(1.0, 2.0)
    (difference,) = compare(record, [report(1), report(2)])
    assert (difference.step, difference.metric) == (2, "grad_norm")
    assert 0 < difference.of_allowed < 1e-13


def test_compare_reads_stored_infinity() -> None:
    """MLflow's databases keep it as the largest double."""
    record = recorded(report(1))
    record[1]["train_loss"] = sys.float_info.max
    replayed = dataclasses.replace(report(1), train_loss=math.inf)
    assert compare(record, [replayed]) == []


def test_compare_leaves_out_what_earlier_versions_did_not_record() -> None:
    now = dataclasses.replace(report(1), adapter_norm=2.0, effective_update=0.1)
    assert compare(recorded(report(1)), [now]) == []
    other = dataclasses.replace(now, effective_update=0.2)
    assert [d.metric for d in compare(recorded(now), [other])] == ["effective_update"]


def test_compare_orders_by_step_and_misses_no_report() -> None:
    found = compare(recorded(report(1), report(2)), [report(1, 2.9), report(3)])
    assert found[0].metric == "val_loss"
    assert [d.step for d in found] == sorted(d.step for d in found)
    assert {d.step for d in found} == {1, 2, 3}
    missing = [d for d in found if d.step == 2]
    assert {d.metric for d in missing} == {*METRICS}
    assert all(math.isinf(d.of_allowed) for d in missing)


def test_judge_tolerates_few_different_tokens() -> None:
    """A score may be near zero, where any difference is a large share of it."""
    old = dataclasses.replace(report(1), token_accuracy=0.001, bleu=0.1)
    near = dataclasses.replace(old, token_accuracy=0.015, bleu=1.9)
    far = dataclasses.replace(old, bleu=2.2)
    assert judge(compare(recorded(old), [near]), is_elsewhere=True) is Verdict.WITHIN_TOLERANCE
    assert judge(compare(recorded(old), [far]), is_elsewhere=True) is Verdict.DIFFERENT


def test_judge_tolerates_small_differences_on_other_device_only() -> None:
    near = compare(recorded(report(1, 3.0)), [report(1, 3.001)])
    far = compare(recorded(report(1, 3.0)), [report(1, 3.5)])
    assert judge([], is_elsewhere=True) is Verdict.BIT_EXACT
    assert judge(near, is_elsewhere=False) is Verdict.DIFFERENT
    assert judge(near, is_elsewhere=True) is Verdict.WITHIN_TOLERANCE
    assert judge(far, is_elsewhere=True) is Verdict.DIFFERENT


# retraining from a specification -----------------------------------------------------------------


def fake_corpus(tokens: Tokens) -> Corpus:
    """What a retraining takes of a corpus."""
    tokenizer = SimpleNamespace(decode=str)
    return cast(Corpus, SimpleNamespace(splits=tokens, choices=None, tokenizer=tokenizer))


def replayed(tokens: Tokens, spec: TrialSpec, made: list[Report], folder: Path) -> list[Difference]:
    """What a replay finds of the reports of a search."""
    reported_steps: list[int] = []
    reports, _ = _retrain(
        spec,
        len(made),
        CPU,
        fake_corpus(tokens),
        folder,
        lambda n, of, r: reported_steps.append(r.step),
    )
    assert reported_steps == [r.step for r in made]
    return compare(recorded(*made), reports)


@pytest.mark.parametrize(
    ("has_gpu", "device", "dtype", "expected"),
    [
        (False, "cpu: x, AVX2", "float32", ("cpu", "float32")),
        (False, "cpu: x, AVX2", "bfloat16", ("cpu", "bfloat16")),
        (False, "cuda: H100, CUDA 13", "bfloat16", ("cpu", "bfloat16")),
        (False, "cuda: H100, CUDA 13", "tf32", ("cpu", "float32")),
        (False, "cpu: x", "mixed_bfloat16", ("cpu", "mixed_bfloat16")),
        (True, "cuda: H100", "mixed_bfloat16", ("cuda", "float32")),
        (False, "mps: arm", "float32", ("cpu", "float32")),
        (False, "unknown", "unknown", ("cpu", "float32")),
        (True, "cuda: H100, CUDA 13", "tf32", ("cuda", "tf32")),
        (True, "mps: arm", "bfloat16", ("mps", "bfloat16")),
        (True, "cpu: x", "float32", ("cpu", "float32")),
    ],
)
def test_replay_trains_as_recorded_if_the_machine_can(
    monkeypatch: pytest.MonkeyPatch,
    has_gpu: bool,
    device: str,
    dtype: str,
    expected: tuple[str, str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_gpu)
    assert _where({"device": device, "dtype": dtype}) == expected


@pytest.mark.parametrize(
    ("device", "entry", "expected"),
    [
        ("cpu", {}, ("no", False)),  # recorded before ticks were compiled
        ("cpu", {"compiled": "no"}, ("no", False)),
        ("cpu", {"compiled": "g++ 11"}, ("g++ 12", True)),
        ("cuda", {"compiled": "g++ 11"}, ("no", False)),
    ],
)
def test_replay_compiles_ticks_that_were_compiled(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    entry: dict[str, str],
    expected: tuple[str, bool],
) -> None:
    monkeypatch.setattr(compiler, "check_compiler", lambda: "g++ 12")
    assert _compiler(CPU | entry, device) == expected


def test_replay_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> str:
        raise CompileError("there is no C++ compiler (g++); install one")

    monkeypatch.setattr(compiler, "check_compiler", check)
    entry, is_compiled = _compiler(CPU | {"compiled": "g++ 12"}, "cpu")
    assert not is_compiled
    assert entry == "no (there is no C++ compiler (g++); install one)"


def test_replay_verdict_names_different_dtype(
    tokens: Tokens, make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec(steps=4, reports=2)
    for dtype in ("float32", "bfloat16"):
        there = CPU | {"dtype": dtype}
        reports, present = _retrain(spec, 2, there, fake_corpus(tokens), tmp_path, None)
        assert present["dtype"] == dtype
        made = list(Engine(*tokens, dtype=dtype).run([spec]))
        assert compare(recorded(*made), reports) == []


def test_replay_trains_in_a_stack_as_wide_as_the_recorded_one(
    tokens: Tokens, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Engine] = []
    monkeypatch.setattr(Engine, "run", lambda engine, _: made.append(engine) or iter(()))
    for width in ({}, {"width": "any"}, {"width": "3"}):
        _retrain(make_spec(), 1, CPU | width, fake_corpus(tokens), tmp_path, None)
    assert [(engine.slots, engine.width) for engine in made] == [(1, 1), (1, 1), (1, 3)]


def searched(tokens: Tokens, specs: list[TrialSpec], stop: dict[str, int]) -> list[list[Report]]:
    """Trials in a stack of two slots; some are stopped after an update."""
    engine = Engine(*tokens, slots=2, width=2)
    reports: list[list[Report]] = [[] for _ in specs]
    for r in engine.run(specs):
        reports[int(r.trial_id)].append(r)
        if stop.get(r.trial_id) == r.step:
            engine.stop(r.trial_id)
    return reports


@pytest.mark.slow
def test_replay_repeats_a_trial_of_a_refilled_slot(
    tokens: Tokens, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """After a stopped, a finished and a diverged trial, beside others in the middle of theirs."""
    wild = make_spec(
        steps=40, reports=4, optimizer="sgd", schedule="constant", learning_rate=100.0,
        weight_decay=10.0, grad_clip=0.0, warmup_steps=0,
    )  # fmt: skip
    rich = {"dropout": 0.1, "ema_decay": 0.9, "target_sparsity": 0.5, "prune_interval_steps": 2}
    specs = [
        make_spec(seed=1, steps=14, **rich), wild, make_spec(seed=2, steps=5),
        make_spec(seed=3, steps=16, batch_size=6), make_spec(seed=4, steps=9, **rich),
    ]  # fmt: skip
    made = searched(tokens, specs, {"0": 5})
    assert [len(reports) for reports in made[2:]] == [3, 3, 3]
    assert made[1][-1].status is Status.DIVERGED
    for spec, reports in zip(specs, made, strict=True):
        assert replayed(tokens, spec, reports, tmp_path) == []
    assert replayed(tokens, make_spec(seed=9, steps=9, **rich), made[4], tmp_path) != []


@pytest.mark.slow
def test_replay_follows_a_chain(tokens: Tokens, make_spec: MakeSpec, tmp_path: Path) -> None:
    """The child's own reports are compared; its ancestors are trained again on the way."""
    root = make_spec(steps=12, reports=6, dropout=0.1)
    spec = root
    for step, rate in ((4, 0.02), (8, 0.001)):
        own = spec.model_dump(exclude={"continues"})
        own["hyperparameters"] |= {"max_learning_rate": rate, "min_learning_rate": rate / 10}
        spec = TrialSpec(**own, continues=Continues(spec=spec, step=step))
    # in the search it went on from its parent's states
    engine = Engine(*tokens, checkpoint_dir=tmp_path)
    before = 0
    for link, (name, end) in zip(spec.chain, (("a", 4), ("b", 8), ("c", 12)), strict=True):
        engine.add_trial(name, link, resume=CheckpointRef(chr(ord(name) - 1), before))
        made: list[Report] = []
        while not made or made[-1].step < end:
            made += engine.step()
        engine.stop(name)
        before = end
    assert [r.step for r in made] == [10, 12]
    assert replayed(tokens, spec, made, tmp_path) == []
    other = spec.model_copy(update={"seed": 8})
    assert replayed(tokens, other, made, tmp_path) != []


@pytest.mark.parametrize(("count", "which"), [(1, "its report is"), (2, "all 2 reports are")])
def test_sentence_of_a_bit_exact_replay(make_spec: MakeSpec, count: int, which: str) -> None:
    trial = TrialRecord("0" * 32, 0, "lm-1", "finished", {}, {}, {})
    result = ReplayResult(trial, make_spec(), Verdict.BIT_EXACT, count, [], {})
    assert result.sentence == f"bit-exact: {which} the same to the last bit"
    elsewhere = dataclasses.replace(result, changed={"numpy": ("2.0.2", "2.4.6")})
    assert elsewhere.sentence == f"{result.sentence}, with numpy 2.0.2 → 2.4.6"


@pytest.mark.parametrize(
    ("outcome", "steps", "problem"),
    [
        ("finished", (4, 8), "is finished, but has no report at its last update, only 2 before"),
        ("stopped at report 2", (4, 8, 12), "was stopped at report 2, but has 3 reports"),
        (
            "stopped at report 2",
            (4, 5),
            "has a report at an update at which its",
        ),
        ("finished", (4, 8, 12), None),
        ("stopped at report 2", (4, 8), None),
        ("diverged", (4, 5), None),
    ],
)
def test_replay_refuses_an_outcome_that_its_reports_contradict(
    make_spec: MakeSpec, tmp_path: Path, outcome: str, steps: tuple[int, ...], problem: str | None
) -> None:
    """A journal that somebody made, with lines that fit."""
    search = RecordedSearch(Home(tmp_path, "sqlite://"), is_followed=False)
    status = Status.DIVERGED if outcome == "diverged" else Status.TRAINING
    reports = [report(step) for step in steps[:-1]] + [report(steps[-1], status=status)]
    search.trial(0, make_spec(steps=12, reports=3), *reports, outcome=outcome)
    journal = Search.of_name(search.journal.events, "lm-1")
    search.close()
    record = TrialRecord.of("lm-1", journal.trials[0], "0" * 32)
    trial = RecordedTrial(cast(Any, None), journal, record)
    if problem is None:
        _check_outcome(trial)
    else:
        with pytest.raises(RecordError, match=f"trial 0 of lm-1 contradicts itself: .*{problem}"):
            _check_outcome(trial)
