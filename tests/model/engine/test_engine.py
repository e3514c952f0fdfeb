"""The engine against a plain training loop; its guarantees about slots and reports."""

from __future__ import annotations

import copy
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.checkpoints import checkpoint
from model.corpus.order import data_order
from model.engine.engine import Engine
from model.engine.report import METRICS, Report, Status
from model.network.transformer import TransformerLM
from model.optimizers.registry import OPTIMIZERS
from model.spec.trial import TrialSpec
from model.stack.plan import QuantumPlan
from model.stack.stack import Stack
from tests.conftest import MakeSpec, last_state

Tokens = tuple[np.ndarray, np.ndarray]
WILD: dict[str, Any] = {
    "optimizer": "sgd",
    "schedule": "constant",
    "learning_rate": 100.0,
    "weight_decay": 10.0,
    "grad_clip": 0.0,
    "warmup_steps": 0,
}


def run_all(tokens: Tokens, specs: list[TrialSpec], **engine: Any) -> list[list[Report]]:
    """Train specifications; return the reports of each trial."""
    reports: list[list[Report]] = [[] for _ in specs]
    for report in Engine(*tokens, **engine).run(specs):
        reports[int(report.trial_id)].append(report)
    return reports


def windows(tokens: np.ndarray, numbers: Any, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return some sequences, cut out one by one."""
    cut = [tokens[n * length : n * length + length + 1].astype(np.int64) for n in numbers]
    pieces = torch.from_numpy(np.stack(cut))
    return pieces[:, :-1], pieces[:, 1:]


def plain_model(spec: TrialSpec) -> TransformerLM:
    a = spec.architecture
    return TransformerLM(
        1, a.vocab_size, a.context_length, a.d_model, a.n_layers, a.n_heads, a.d_ff,
        a.rope_theta, seed=spec.seed,
    )  # fmt: skip


def matrices_of(model: TransformerLM) -> list[torch.nn.Parameter]:
    return [
        p for n, p in model.named_parameters() if p.dim() == 3 and n != "token_embeddings.weight"
    ]


def plain_optimizer(spec: TrialSpec, model: TransformerLM) -> torch.optim.Optimizer:
    """λ decays the matrices; embedding and gains have their own decays."""
    h = spec.hyperparameters
    groups = [
        {"params": matrices_of(model), "weight_decay": h.weight_decay},
        {
            "params": [model.get_parameter("token_embeddings.weight")],
            "weight_decay": h.embedding_decay,
        },
        {"params": [p for p in model.parameters() if p.dim() == 2], "weight_decay": h.gain_decay},
    ]
    if h.optimizer == "momentum":
        return torch.optim.SGD(groups, 1.0, h.momentum)
    return torch.optim.AdamW(groups, 1.0, (h.beta1, h.beta2), h.eps)


def plain_rate(step: int, h: Any) -> float:
    if step <= h.warmup_steps:
        return float(h.max_learning_rate * step / h.warmup_steps)
    share = min(1.0, (step - h.warmup_steps) / (h.cycle_steps - h.warmup_steps))
    swing = h.max_learning_rate - h.min_learning_rate
    return float(h.min_learning_rate + swing * (1 + math.cos(math.pi * share)) / 2)


def plain_training(
    spec: TrialSpec, tokens: Tokens, model: TransformerLM, optimizer: torch.optim.Optimizer
) -> list[tuple[float, ...]]:
    """Return plain and differentiated loss, norm, rate and validation loss of each update."""
    h, length = spec.hyperparameters, spec.architecture.context_length
    available = (len(tokens[1]) - 1) // length
    assert spec.validation_sequences <= available
    rows = []
    mean = copy.deepcopy(model)
    masks = [torch.ones_like(p) for p in matrices_of(model)]
    for step in range(1, h.total_steps + 1):
        positions = np.arange((step - 1) * h.batch_size, step * h.batch_size)
        x, y = windows(tokens[0], data_order(spec.seed, positions, spec.train_sequences), length)
        logits = model(x[None])[0].flatten(0, 1)
        plain = torch.nn.functional.cross_entropy(logits, y.flatten())
        loss = torch.nn.functional.cross_entropy(
            logits, y.flatten(), label_smoothing=h.label_smoothing
        )
        loss = loss + h.z_loss * logits.logsumexp(-1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        for p, mask in zip(matrices_of(model), masks, strict=True):
            assert p.grad is not None
            p.grad *= mask
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), h.grad_clip or math.inf)
        torch.nn.utils.clip_grad_value_(model.parameters(), h.grad_clip_value or math.inf)
        for group in optimizer.param_groups:
            group["lr"] = plain_rate(step, h)
        for p in matrices_of(model):
            assert p.grad is not None
            p.grad += h.l1_penalty * p.detach().sign()
        optimizer.step()
        plain_pruning(step, h, matrices_of(model), masks)
        evaluated = model
        if h.ema_decay:
            decay = min(h.ema_decay, (1 + step) / (10 + step))
            with torch.no_grad():
                for a, b in zip(mean.parameters(), model.parameters(), strict=True):
                    a.copy_(decay * a + (1 - decay) * b)
                for a, mask in zip(matrices_of(mean), masks, strict=True):
                    a *= mask
            evaluated = mean
        numbers = plain.item(), loss.item(), norm.item(), plain_rate(step, h)
        rows.append((*numbers, validation(evaluated, tokens)))
    return rows


def row_of(report: Report) -> tuple[float, ...]:
    """Return the numbers of `plain_training`."""
    objective = report.train_loss if report.train_objective is None else report.train_objective
    rates = report.grad_norm, report.learning_rate
    return report.train_loss, objective, *rates, report.val_loss


@torch.no_grad()
def plain_pruning(
    step: int, h: Any, matrices: list[torch.nn.Parameter], masks: list[torch.Tensor]
) -> None:
    """Zhu and Gupta 2017, equation 1, with masks that are kept."""
    begin, end, every = h.prune_start_steps, h.prune_end_steps, h.prune_interval_steps
    now = step >= begin and (step == end or (step < end and (step - begin) % every == 0))
    for p, mask in zip(matrices, masks, strict=True):
        p *= mask
        if now and h.target_sparsity:
            share = h.target_sparsity * (1 - (1 - (step - begin) / (end - begin)) ** 3)
            smallest = p.abs().flatten().argsort()[: round(share * p.numel())]
            mask.view(-1)[smallest] = 0
            p *= mask


@torch.no_grad()
def validation(model: TransformerLM, tokens: Tokens) -> float:
    """On all validation sequences; a specification that reads all of them must agree."""
    length = model.architecture.context_length
    x, y = windows(tokens[1], range((len(tokens[1]) - 1) // length), length)
    logits = model(x[None])[0]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten()).item()


def all_validation(spec: TrialSpec, tokens: Tokens) -> TrialSpec:
    size = (len(tokens[1]) - 1) // spec.architecture.context_length
    return spec.model_copy(update={"validation_sequences": size})


# numbers ----------------------------------------------------------------------------------------


_ROWS: list[dict[str, Any]] = [
    {"weight_decay": 1.0, "grad_clip": 0.5},
    {"label_smoothing": 0.1, "grad_clip": 0.0, "batch_size": 6},
    {"optimizer": "momentum", "max_learning_rate": 0.1, "weight_decay": 0.1},
    {"grad_clip_value": 0.02, "z_loss": 0.05},
    {"embedding_decay": 0.5, "gain_decay": 1.0, "l1_penalty": 0.01},
    {"ema_decay": 0.7},
    {"target_sparsity": 0.6, "prune_interval_steps": 3, "ema_decay": 0.5},
]


# Slots are equal by the law, so one row shows it for a stack of one.
@pytest.mark.slow
@pytest.mark.parametrize(("rows", "width"), [*((rows, 3) for rows in _ROWS), (_ROWS[0], 1)])
def test_engine_equals_a_plain_training_loop(
    tokens: Tokens, make_spec: MakeSpec, rows: dict[str, Any], width: int
) -> None:
    """Torch's autograd, optimizer, loss and clipping, over twenty updates."""
    make = partial(make_spec, model={"n_layers": 2}, steps=20)
    spec = all_validation(make(reports=20, warmup_steps=5, **rows), tokens)
    other = make(seed=4, dropout=0.3)
    (reports, *_) = run_all(tokens, [spec, other, other][:width], slots=width, width=width)
    model = plain_model(spec)
    expected = plain_training(spec, tokens, model, plain_optimizer(spec, model))
    assert [r.step for r in reports] == list(range(1, 21))
    np.testing.assert_allclose([row_of(r) for r in reports], expected, rtol=2e-4)
    assert expected[0][0] - expected[-1][0] > 0.1, "the loop learned something"
    has_objective = not rows.keys().isdisjoint({"label_smoothing", "z_loss"})
    assert {r.train_objective is not None for r in reports} == {has_objective}


@pytest.mark.slow
@pytest.mark.parametrize("rows", [{}, {"label_smoothing": 0.2, "grad_clip": 0.3}])
def test_accumulated_gradients_equal_one_batch(
    tokens: Tokens, make_spec: MakeSpec, rows: dict[str, Any]
) -> None:
    specs = [
        make_spec(batch_size=6, micro_batch=b, steps=10, reports=5, **rows) for b in (1, 2, 3, 6)
    ]
    complete = [list(r.metrics().values()) for r in run_all(tokens, specs[3:])[0]]
    for reports in run_all(tokens, specs[:3]):
        np.testing.assert_allclose(
            [list(r.metrics().values()) for r in reports], complete, rtol=1e-4
        )


@pytest.mark.slow
def test_engine_learns_to_count(tokens: Tokens, make_spec: MakeSpec) -> None:
    """A model that ignores the context has a loss of at least log 61 nats."""
    spec = make_spec(
        model={"n_layers": 2}, steps=400, batch_size=8, micro_batch=8, reports=4,
        max_learning_rate=0.02,
    )  # fmt: skip
    (reports,) = run_all(tokens, [spec])
    losses = [report.val_loss for report in reports]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < math.log(61) - 0.5
    assert reports[-1].train_loss < reports[0].train_loss


# a learning rate at which each of them learns to count
RATES = {
    "adamw": 0.02, "adam": 0.02, "nadamw": 0.02, "lamb": 0.05, "lion": 0.003, "muon": 0.02,
    "adagrad": 0.1, "rmsprop": 0.01, "momentum": 0.3, "nesterov": 0.3, "sgd": 1.0, "lars": 10.0,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_engine_learns_with_each_optimizer(
    tokens: Tokens, make_spec: MakeSpec, optimizer: str
) -> None:
    """A model that ignores the context has a loss of at least log 61 nats."""
    spec = make_spec(
        optimizer=optimizer, max_learning_rate=RATES[optimizer], weight_decay=0.0, steps=120,
        batch_size=8, micro_batch=8, reports=1,
    )  # fmt: skip
    (report,) = run_all(tokens, [spec])[0]
    assert report.val_loss < math.log(61) - 0.15


def test_dropout_is_for_training_only(tmp_path: Path, tokens: Tokens, make_spec: MakeSpec) -> None:
    """The validation loss is that of the saved weights, the training loss is not."""
    made = make_spec(steps=1, reports=1, dropout=0.8)
    spec = all_validation(made, tokens)
    (report,) = run_all(tokens, [spec], checkpoint_dir=tmp_path)[0]
    assert report.checkpoint is not None
    state, _ = checkpoint.read(Path(report.checkpoint))
    model = plain_model(spec)
    untrained = plain_training(spec, tokens, model, plain_optimizer(spec, model))[0][0]
    assert abs(report.train_loss - untrained) > 0.05
    weights = {n.removeprefix("weights."): t[None] for n, t in state.items() if "weights." in n}
    model.load_state_dict(weights)
    assert report.val_loss == pytest.approx(validation(model, tokens), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 2])
def test_pruned_trial_reaches_its_sparsity_and_reports_it(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, width: int
) -> None:
    """The cubic, at the prunings before each report; and exactly so many zeros in each matrix."""
    spec = make_spec(
        steps=20, reports=20, target_sparsity=0.75, prune_start_steps=4, prune_end_steps=16,
        prune_interval_steps=5,
    )  # fmt: skip
    other = make_spec(seed=1, steps=20, reports=20)
    reports, others = run_all(tokens, [spec, other], slots=2, width=width, checkpoint_dir=tmp_path)
    cubic = {t: 0.75 * (1 - (1 - (t - 4) / 12) ** 3) for t in (4, 9, 14, 16)}
    expected = [max((s for t, s in cubic.items() if t <= r.step), default=0.0) for r in reports]
    assert [r.sparsity for r in reports] == pytest.approx(expected, abs=1e-3)
    assert reports[-1].metrics()["sparsity"] == reports[-1].sparsity
    assert [r.sparsity for r in others] == [None] * 20
    state, _ = checkpoint.read(last_state(tmp_path))
    for name in ("layers.0.ffn.w1.weight", "lm_head.weight"):
        weight = state[f"weights.{name}"]
        assert (weight == 0).sum() == round(0.75 * weight.numel())
    for name in ("token_embeddings.weight", "layers.0.ln1.weight"):
        assert (state[f"weights.{name}"] != 0).all()


def test_averaged_trial_saves_its_mean(tmp_path: Path, tokens: Tokens, make_spec: MakeSpec) -> None:
    """Training equals that of a trial without averaging; only the validation loss differs."""
    specs = [make_spec(ema_decay=decay, steps=6, reports=6) for decay in (0.9, 0.0)]
    averaged, plain = run_all(tokens, specs, slots=2, width=2, checkpoint_dir=tmp_path)
    assert [r.train_loss for r in averaged] == [r.train_loss for r in plain]
    assert all(a.val_loss != b.val_loss for a, b in zip(averaged, plain, strict=True))
    (a, _), (b, _) = (checkpoint.read(last_state(tmp_path, str(i))) for i in range(2))
    assert len(a) == 4 * len(b) // 3
    assert all(torch.equal(a[name], b[name]) for name in b)
    assert not torch.equal(a["mean.lm_head.weight"], a["weights.lm_head.weight"])


# reports ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize("batch_size", [2, 4, 10])
@pytest.mark.parametrize("width", [1, 2])
def test_reports_arrive_at_their_steps(
    tokens: Tokens, make_spec: MakeSpec, schedule: str, batch_size: int, width: int
) -> None:
    made = make_spec(
        steps=13, batch_size=batch_size, schedule=schedule, learning_rate=0.004, warmup_steps=3
    )
    spec = made.model_copy(update={"report_tokens": 5 * batch_size * 8})
    other = make_spec(seed=1, steps=7, batch_size=6)
    reports, others = run_all(tokens, [spec, other], slots=2, width=width)
    assert [r.step for r in reports] == [5, 10, 13] == list(spec.report_steps)
    assert [r.step for r in others] == list(other.report_steps)
    assert [r.tokens for r in reports] == [step * batch_size * 8 for step in (5, 10, 13)]
    h = spec.hyperparameters
    constant = [0.004] * 3
    cosine = [plain_rate(step, h) for step in (5, 10, 13)]
    expected = cosine if schedule == "cosine" else constant
    assert [r.learning_rate for r in reports] == pytest.approx(expected)
    assert [r.status for r in reports] == [Status.TRAINING] * 2 + [Status.FINISHED]
    for report in reports:
        assert set(report.metrics()) == set(METRICS)
        assert all(math.isfinite(value) for value in report.metrics().values())
        assert report.perplexity == pytest.approx(math.exp(report.val_loss))
        assert report.checkpoint is None


def test_reports_average_the_losses_since_the_last_one(tokens: Tokens, make_spec: MakeSpec) -> None:
    fine = make_spec(steps=12, reports=12)
    coarse = fine.model_copy(update={"report_tokens": 4 * 32})
    each, means = run_all(tokens, [fine, coarse])
    for number, report in enumerate(means):
        part = each[4 * number : 4 * number + 4]
        assert report.train_loss == pytest.approx(sum(r.train_loss for r in part) / 4, rel=1e-6)
        assert report.grad_norm == pytest.approx(sum(r.grad_norm for r in part) / 4, rel=1e-6)
        assert report.val_loss == part[-1].val_loss


def test_report_names_its_checkpoint(tmp_path: Path, tokens: Tokens, make_spec: MakeSpec) -> None:
    spec = make_spec(steps=6, reports=2)
    for report in Engine(*tokens, checkpoint_dir=tmp_path).run([spec]):
        assert report.checkpoint == str(tmp_path / "0" / f"{report.step:09d}.safetensors")
        state, metadata = checkpoint.read(Path(report.checkpoint))
        assert (metadata["step"], metadata["val_loss"]) == (report.step, report.val_loss)
        assert TrialSpec.model_validate(metadata["spec"]) == spec
        assert metadata["spec_hash"] == spec.hash
        assert len(state) == 3 * len(plain_model(spec).state_dict())


# data order -------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=40)
@given(seed=st.integers(0, 2**63 - 1), size=st.integers(1, 200), batch=st.integers(1, 50))
def test_data_order_reads_every_sequence_once_an_epoch(seed: int, size: int, batch: int) -> None:
    """For every batch size, including batches across the border of epochs."""
    stream = np.arange(3 * size)
    cuts = range(batch, len(stream), batch)
    read = np.concatenate([data_order(seed, part, size) for part in np.split(stream, cuts)])
    for epoch in range(3):
        assert sorted(read[epoch * size : (epoch + 1) * size].tolist()) == list(range(size))
    assert data_order(seed, stream.reshape(3, size), size).tolist() == read.reshape(3, -1).tolist()


def test_data_order_differs_between_epochs_and_seeds() -> None:
    size = 50
    orders = [tuple(data_order(seed, np.arange(4 * size), size)) for seed in range(20)]
    epochs = [order[i : i + size] for order in orders for i in range(0, 4 * size, size)]
    assert len(set(epochs)) == 80


@pytest.mark.slow
def test_engine_reads_each_training_sequence_once(
    make_spec: MakeSpec, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one epoch the stack reads each sequence of the training text once."""
    spec = make_spec(batch_size=4, steps=156, reports=1)
    assert spec.train_sequences == 624 == 156 * 4
    inputs: list[Any] = []
    real = Stack.run

    def spy(stack: Stack, plan: QuantumPlan) -> Any:
        assert plan.host_batch is not None
        inputs.append(plan.host_batch.inputs.reshape(-1, 8))
        return real(stack, plan)

    monkeypatch.setattr(Stack, "run", spy)
    run_all(tokens, [spec])
    read = sorted(map(tuple, np.concatenate(inputs).tolist()))
    assert read == sorted(map(tuple, tokens[0][: 624 * 8].reshape(624, 8).tolist()))


# slots ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("slots", "width"), [(1, 1), (2, 1), (2, 2), (3, 2), (2, 4)])
def test_engine_trains_more_trials_than_slots(
    tokens: Tokens, make_spec: MakeSpec, slots: int, width: int
) -> None:
    specs = [make_spec(seed=i, steps=4 + i % 3, reports=4) for i in range(7)]
    engine = Engine(*tokens, slots=slots, width=width)
    assert engine.num_pending == 0
    begun: set[str] = set()
    finished: list[str] = []
    for report in engine.run(specs):
        begun.add(report.trial_id)
        if report.status is Status.FINISHED:
            finished.append(report.trial_id)
        assert len(begun) - len(finished) <= slots
    assert sorted(finished) == [str(i) for i in range(7)]
    assert engine.num_pending == 0
    assert engine.step() == []
    assert engine.tokens == sum(spec.budget_tokens for spec in specs)
    assert engine.training_seconds > 0


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 2])
def test_engine_listens_more_often_after_a_report_to_one_slot(
    tokens: Tokens, make_spec: MakeSpec, width: int
) -> None:
    """Training after the report may be wasted; in a wide stack the neighbours use the time."""
    spec = make_spec(steps=60, reports=2)
    engine = Engine(*tokens, slots=width, width=width)
    for number in range(width):
        engine.add_trial(str(number), spec)
    tick = width * spec.micro_batch * spec.architecture.context_length  # tokens
    quanta = []
    while engine.num_pending:
        before = engine.tokens
        engine.step()
        quanta.append((engine.tokens - before) // tick)
    even = [*[8] * 7, 4]
    assert quanta == even + ([1, 1, 2, 4, *[8] * 6, 4] if width == 1 else even)


def test_engine_counts_seconds_without_a_trial(
    tokens: Tokens, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("model.engine.occupancy.time.perf_counter", lambda: now)
    engine = Engine(*tokens, slots=2)
    engine.step()
    now += 1  # before the first trial: not counted
    engine.add_trial("0", make_spec(steps=1000, reports=10))
    engine.step()
    now += 2  # one trial
    engine.add_trial("1", make_spec(steps=1000, reports=10))
    engine.step()
    now += 4  # two
    engine.stop("0")
    engine.stop("no such trial")
    now += 8  # one
    engine.stop("1")
    now += 16  # none
    full = engine.occupancy.now()
    assert (full.seconds, full.free_slot_seconds, full.idle_seconds) == (30, 2 + 8 + 32, 16)


@pytest.mark.slow
def test_engine_trains_several_shapes_at_once(tokens: Tokens, make_spec: MakeSpec) -> None:
    shapes = [{}, {"d_model": 8}, {"context_length": 4}, {"n_layers": 1}]
    specs = [make_spec(model=shape, seed=i, steps=6) for i, shape in enumerate(shapes * 2)]
    specs.append(make_spec(micro_batch=4, steps=6))
    together = run_all(tokens, specs, slots=9, width=2)
    for spec, reports in zip(specs, together, strict=True):
        (alone,) = run_all(tokens, [spec])
        assert [r.metrics() for r in alone] == [r.metrics() for r in reports]
        assert reports[-1].status is Status.FINISHED


def test_engine_interleaves_stacks(tokens: Tokens, make_spec: MakeSpec) -> None:
    """Two trials in separate stacks advance together, not one after the other."""
    specs = [make_spec(seed=i, steps=12, reports=6) for i in range(2)]
    order = [report.trial_id for report in Engine(*tokens, slots=2, width=1).run(specs)]
    assert order == ["0", "1"] * 6


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 2])
def test_stop_frees_a_running_trial(tokens: Tokens, make_spec: MakeSpec, width: int) -> None:
    specs = [make_spec(seed=i, steps=12, reports=6) for i in range(3)]
    engine = Engine(*tokens, slots=2, width=width)
    seen: list[tuple[str, int]] = []
    for report in engine.run(specs):
        seen.append((report.trial_id, report.step))
        if (report.trial_id, report.step) == ("0", 4):
            engine.stop("0")
    assert [step for trial, step in seen if trial == "0"] == [2, 4]
    for trial in ("1", "2"):
        assert [step for name, step in seen if name == trial] == [2, 4, 6, 8, 10, 12]
    assert seen.index(("2", 2)) < seen.index(("1", 12)), "the slot was refilled at once"


def test_stop_takes_a_waiting_trial_from_the_queue(tokens: Tokens, make_spec: MakeSpec) -> None:
    engine = Engine(*tokens, slots=1)
    for i in range(3):
        engine.add_trial(f"t{i}", make_spec(seed=i, steps=3))
    engine.step()
    engine.stop("t1")
    assert engine.num_pending == 2
    names = set()
    while engine.num_pending:
        names |= {report.trial_id for report in engine.step()}
    assert names == {"t0", "t2"}


def test_stop_of_an_unknown_trial_changes_nothing(tokens: Tokens, make_spec: MakeSpec) -> None:
    engine = Engine(*tokens)
    engine.stop("nobody")
    engine.add_trial("t", make_spec(steps=3))
    engine.stop("nobody")
    engine.step()
    engine.stop("nobody")
    assert engine.num_pending == 1
    engine.stop("t")
    engine.stop("t")
    assert engine.num_pending == 0
    assert engine.step() == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 2])
def test_diverged_trial_is_reported_once_and_its_slot_refilled(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, width: int
) -> None:
    wild = make_spec(steps=40, reports=4, **WILD)
    specs = [wild, make_spec(seed=1, steps=40), make_spec(seed=2, steps=6)]
    reports = run_all(tokens, specs, slots=2, width=width, checkpoint_dir=tmp_path)
    last = reports[0][-1]
    assert [r.status for r in reports[0]].count(Status.DIVERGED) == 1
    assert last.status is Status.DIVERGED
    assert math.isnan(last.val_loss) and math.isnan(last.perplexity)
    assert 1 <= last.step < 40
    assert last.tokens == last.step * wild.tokens_per_step
    assert last.checkpoint is None
    assert [r[-1].status for r in reports[1:]] == [Status.FINISHED] * 2


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_diverged_trial_names_the_update_that_was_not_finite(
    tokens: Tokens, make_spec: MakeSpec, optimizer: str
) -> None:
    """The plain loop diverges at the same update."""
    wild = make_spec(steps=40, reports=1, **{**WILD, "optimizer": optimizer})
    (report,) = run_all(tokens, [wild])[0]
    h, model = wild.hyperparameters, plain_model(wild)
    optim = plain_optimizer(wild, model)
    for step in range(1, 41):
        positions = np.arange((step - 1) * h.batch_size, step * h.batch_size)
        x, y = windows(tokens[0], data_order(wild.seed, positions, wild.train_sequences), 8)
        loss = torch.nn.functional.cross_entropy(model(x[None])[0].flatten(0, 1), y.flatten())
        optim.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), math.inf)
        if not (loss.isfinite() and norm.isfinite()):
            break
        for group in optim.param_groups:
            group["lr"] = h.learning_rate
        optim.step()
    assert report.status is Status.DIVERGED
    assert report.step == step


@pytest.mark.parametrize(
    ("kind", "tick", "step"),
    [("loss", 0, 1), ("loss", 2, 2), ("loss", 3, 2), ("norm", 3, 2), ("norm", 2, None)],
)
def test_diverged_trial_counts_the_update_it_was_in(
    tokens: Tokens,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    tick: int,
    step: int | None,
) -> None:
    """Two ticks make an update; a norm between updates is not valid."""
    real = Stack.run

    def run(stack: Stack, plan: QuantumPlan) -> Any:
        measured = real(stack, plan)()
        (measured.losses if kind == "loss" else measured.norms)[tick] = math.nan
        return lambda: measured

    monkeypatch.setattr(Stack, "run", run)
    (reports,) = run_all(tokens, [make_spec(steps=4, reports=1)])
    expected = (Status.FINISHED, 4) if step is None else (Status.DIVERGED, step)
    assert [(r.status, r.step) for r in reports] == [expected]
