"""Training on examples: losses of answers alone, packed as unpacked, exact answers, the law."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from model.checkpoints import checkpoint
from model.corpus.dataset import IGNORED, Batch
from model.corpus.examples import ExampleDataset
from model.corpus.order import data_order
from model.engine.engine import Engine
from model.engine.report import Report
from model.generation.generate import generate, stack_weights
from model.generation.settings import GenerationSettings
from model.network.dropout import Dropout
from model.network.transformer import LanguageModel, TransformerLM, initial_weight
from model.sources.choices import ChoiceSet
from model.spec.architecture import Architecture, parameter_shapes
from model.spec.data import DataConfig
from model.spec.trial import TrialSpec
from model.stack.compile_tick import traceable
from model.stack.gradients import Gradients
from model.stack.stack import Stack
from model.stack.tick_kind import TickKind
from tests.conftest import VOCAB, MakeSpec

END = 1


def questions(count: int, seed: int, **options: Any) -> ExampleDataset:
    """Examples `q q … END a a … END`: the answer repeats each letter of the question twice."""
    rng = np.random.default_rng(seed)
    ids, marks, ends = list[int](), list[int](), list[int]()
    for _ in range(count):
        letters = rng.integers(2, 6, rng.integers(1, 3)).tolist()
        answer = [x for letter in letters for x in (letter + 4, letter + 4)]
        ids += [*letters, END, *answer, END]
        marks += [0] * (len(letters) + 1) + [1] * (len(answer) + 1)
        ends.append(len(ids))
    tokens = np.array(ids, np.uint16), np.array(ends, np.int64), np.array(marks, np.uint8)
    return ExampleDataset(*tokens, 0, **options)


def spec_of(make_spec: MakeSpec, train: ExampleDataset, **options: Any) -> TrialSpec:
    """A specification of examples, made of one of text."""
    spec = make_spec(**options)
    sequences = train.num_sequences(spec.architecture)
    h = spec.hyperparameters
    epochs = -(-h.total_steps * h.batch_size // sequences)
    data = DataConfig(files=("a.jsonl",), examples=True, packing=train._is_packed)
    return TrialSpec.model_validate(
        {
            **spec.model_dump(), "data": data, "train_sequences": sequences,
            "validation_sequences": 6, "hyperparameters": {**h.model_dump(), "epochs": epochs},
        }
    )  # fmt: skip


def run(
    data: tuple[ExampleDataset, ExampleDataset], *specs: TrialSpec, **more: Any
) -> list[Report]:
    return list(Engine(*data, **more).run(specs))


def weights_of(a: Architecture, seed: int = 3) -> dict[str, torch.Tensor]:
    return {
        name: initial_weight(seed, name, shape).unsqueeze(0).requires_grad_()
        for name, shape in parameter_shapes(a).items()
    }


def tensors(batch: Batch) -> list[torch.Tensor]:
    return [torch.from_numpy(array).unsqueeze(0) for array in batch.arrays]


POSITIONS = ("rope", "learned", "sinusoidal", "alibi", "relative", "none")


@pytest.mark.parametrize("position", POSITIONS)
def test_packed_equals_unpacked(position: Any) -> None:
    """Loss and gradients of all examples, whatever lies beside them in a sequence."""
    a = Architecture(vocab_size=12, context_length=24, d_model=16, n_layers=2, position=position)
    results = []
    for is_packed in (True, False):
        data = questions(40, 0, is_packed=is_packed)
        batch = data.batch(np.arange(data.num_sequences(a)), a)
        assert (batch.begins is not None) == is_packed
        compute = Gradients(a, masks_targets=True)
        results.append(compute(weights_of(a), tensors(batch), torch.ones(1), Dropout(), None, None))
    (losses, grads), (other_losses, other_grads) = results
    assert losses[0] == pytest.approx(other_losses[0].item(), rel=1e-6)
    for name, one, other in zip(parameter_shapes(a), grads, other_grads, strict=True):
        assert (one - other).norm() <= 2e-6 * max(1e-3, other.norm()), name


def test_gradients_are_those_of_autograd_on_answers_alone() -> None:
    a = Architecture(vocab_size=12, context_length=24, d_model=16, n_layers=1)
    data = questions(9, 1, is_packed=False)
    batch = data.batch(np.arange(9), a)
    weights = weights_of(a)
    losses, grads = Gradients(a, masks_targets=True)(
        weights, tensors(batch), torch.ones(1), Dropout(), None, None
    )
    x, y = tensors(batch)
    logits = LanguageModel(a)(weights, x)[0]
    loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=IGNORED)
    assert losses[0].item() == pytest.approx(loss.item(), rel=1e-6)
    expected = torch.autograd.grad(loss, list(weights.values()))
    for one, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    # of each example the answer and its end count, and nothing of the question
    assert (batch.targets != IGNORED).sum() == data.answers.sum()


@pytest.mark.parametrize("is_packed", [True, False])
def test_traced_ticks_equal_eager_ones(is_packed: bool) -> None:
    """The function that the compiler reads, with the arrays that compiled ticks pass."""
    a = Architecture(vocab_size=12, context_length=24, d_model=16, n_layers=1)
    data = questions(40, 0, is_packed=is_packed)
    batch = data.batch(np.arange(4), a)
    kind = TickKind(a, 4, "float32", has_examples=True, is_packed=is_packed)
    assert TickKind.from_json(kind.to_json()) == kind
    function, (row, *others) = traceable(kind)
    numbers, ids = others[:5], others[5:]
    assert [x.shape for x in ids] == [x.shape for x in tensors(batch)]
    generator = torch.Generator().manual_seed(0)
    row = torch.randn(row.shape, generator=generator) * 0.1
    losses, _ = function(row, *numbers, *tensors(batch))
    stack = Stack(a, 1, "cpu", masks_targets=True)
    assert (len(batch.arrays) > 2) == is_packed  # from which a stack concludes it
    weights = {n: v.detach().requires_grad_() for n, v in stack._matrices.views(row).items()}
    (expected,), _ = Gradients(a, masks_targets=True)(
        weights, tensors(batch), torch.ones(1), Dropout(), None, None
    )
    assert losses[0].item() == pytest.approx(expected.item(), rel=1e-6)


MODEL = {"n_layers": 1, "context_length": 20, "d_model": 32}


@pytest.mark.slow
def test_losses_are_means_over_answers(make_spec: MakeSpec) -> None:
    """Of the first update, and of validation, by torch; whatever the micro-batch."""
    data = questions(60, 0), questions(20, 1)
    for micro_batch in (1, 6):
        spec = spec_of(
            make_spec, data[0], model=MODEL, batch_size=6, micro_batch=micro_batch, steps=1,
            reports=1, max_learning_rate=1e-9, warmup_steps=0,
        )  # fmt: skip
        (report,) = run(data, spec)
        a = spec.architecture
        weights = weights_of(a, spec.seed)
        numbers = data_order(spec.seed, np.arange(6), spec.train_sequences)
        everything = np.arange(data[1].num_sequences(a))
        for part, rows, loss in (
            (data[0], numbers, report.train_loss), (data[1], everything, report.val_loss),
        ):  # fmt: skip
            x, y, begins = tensors(part.batch(rows, a))
            logits = Gradients(a).model.head(
                weights, LanguageModel(a).activations(weights, x, begins)
            )
            expected = F.cross_entropy(logits[0].flatten(0, 1), y.flatten(), ignore_index=IGNORED)
            if part is data[0] or len(everything) == spec.validation_sequences:
                assert loss == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("is_packed", [True, False])
def test_exact_match_is_that_of_greedy_decoding(
    make_spec: MakeSpec, tmp_path: Path, is_packed: bool
) -> None:
    """Reported at every report; at the end equal to what our cache of keys and values writes."""
    data = questions(200, 0, is_packed=is_packed), questions(20, 1, is_packed=is_packed)
    spec = spec_of(
        make_spec, data[0], model=MODEL, batch_size=8, steps=60, reports=3,
        max_learning_rate=2e-2, warmup_steps=4,
    )  # fmt: skip
    sequences = data[1].num_sequences(spec.architecture)
    spec = spec.model_copy(update={"validation_sequences": sequences})
    *earlier, last = run(data, spec, checkpoint_dir=tmp_path)
    assert all(report.exact_match is not None for report in earlier)
    assert last.exact_match is not None
    assert last.token_accuracy is not None
    assert 0.2 < last.exact_match < 1  # else the next lines would compare little
    assert last.exact_match <= last.token_accuracy
    state = checkpoint.read(Path(str(last.checkpoint)))[0]
    weights = {n: state[f"weights.{n}"] for n in parameter_shapes(spec.architecture)}
    a = spec.architecture.model_copy(update={"end_of_text": END})
    right = 0
    for number in range(len(data[1])):
        ids, marks = data[1].example(number)
        prompt, answer = ids[marks == 0].tolist(), ids[marks == 1].tolist()
        settings = GenerationSettings(temperature=0, max_tokens=len(answer))
        steps = generate(a, stack_weights(a, [weights]), [[prompt]], settings)
        tokens = [int(step[0, 0]) for step in steps]
        right += [*takewhile(lambda token: token >= 0, tokens), END] == answer
    assert last.exact_match == pytest.approx(right / len(data[1]))


@pytest.mark.slow
def test_slots_of_a_stack_ignore_their_neighbours(make_spec: MakeSpec, tmp_path: Path) -> None:
    data = questions(60, 0), questions(20, 1)
    specs = [
        spec_of(make_spec, data[0], model=MODEL, batch_size=b, steps=4, reports=2, seed=seed,
                max_learning_rate=1e-2, token_noise=0.1 * seed)
        for seed, b in ((1, 4), (2, 8))
    ]  # fmt: skip
    together = run(data, *specs, slots=2, width=2, checkpoint_dir=tmp_path / "both")
    for number, spec in enumerate(specs):
        alone = run(data, spec, checkpoint_dir=tmp_path / f"alone{number}")
        of_trial = [report for report in together if report.trial_id == str(number)]
        for one, other in zip(alone, of_trial, strict=True):
            assert (one.val_loss, one.exact_match) == (other.val_loss, other.exact_match)
            assert one.train_loss == other.train_loss


def test_all_tokens_can_be_learned(make_spec: MakeSpec) -> None:
    data = questions(60, 0, learns_all=True), questions(20, 1, learns_all=True)
    spec = spec_of(make_spec, data[0], model=MODEL, batch_size=4, steps=1, reports=1)
    config = spec.data.model_copy(update={"loss_on": "all"})
    (report,) = run(data, spec.model_copy(update={"data": config}))
    assert report.exact_match is None
    assert report.token_accuracy is not None


def test_engine_and_specification_agree_on_examples(make_spec: MakeSpec) -> None:
    data = questions(60, 0), questions(20, 1)
    tokens = np.arange(2000, dtype=np.uint16) % VOCAB
    spec = spec_of(make_spec, data[0], model=MODEL, batch_size=4, steps=1, reports=1)
    with pytest.raises(ValueError, match="needs examples and questions as the specification has"):
        Engine(tokens, tokens).add_trial("0", spec)
    fields = {**spec.model_dump(), "architecture": {**spec.architecture.model_dump(),
              "attend_across_documents": False}}  # fmt: skip
    with pytest.raises(
        ValueError, match="attend_across_documents: false has no effect on examples"
    ):
        TrialSpec.model_validate(fields)


# questions ---------------------------------------------------------------------------------------


def choice_set(seed: int, count: int) -> ChoiceSet:
    """Questions of two to four choices, of random ids."""
    rng = np.random.default_rng(seed)
    tokens, bounds, lengths, characters, questions, answers = [], [0], [], [], [], []
    for question in range(count):
        prompt, choices = rng.integers(2, 11, rng.integers(1, 30)), int(rng.integers(2, 5))
        answers.append(len(lengths) + int(rng.integers(choices)))
        for _ in range(choices):
            choice = rng.integers(2, 11, rng.integers(1, 6))
            tokens += [*prompt.tolist(), *choice.tolist()]
            bounds.append(len(tokens))
            lengths.append(len(choice))
            characters.append(int(rng.integers(1, 20)))
            questions.append(question)
    arrays = tokens, bounds, lengths, characters, questions, answers
    return ChoiceSet(*(np.array(array) for array in arrays))


@pytest.mark.slow
def test_choices_are_scored_by_the_logits(make_spec: MakeSpec, tmp_path: Path) -> None:
    """By hand from the logits of each text alone; a search of texts reports them, too."""
    choices = choice_set(0, 40)
    tokens = np.random.default_rng(1).integers(0, VOCAB, 6000).astype(np.uint16)
    spec = make_spec(model=MODEL, batch_size=4, steps=4, reports=2)
    data = spec.data.model_copy(update={"multiple_choice": "choices.jsonl"})
    asked = spec.model_copy(update={"data": data})
    reports = list(Engine(tokens, tokens, choices=choices, checkpoint_dir=tmp_path).run([asked]))
    plain = list(Engine(tokens, tokens).run([spec]))
    assert [r.val_loss for r in reports] == [r.val_loss for r in plain]
    assert all(r.acc is None for r in plain)
    state = checkpoint.read(Path(str(reports[-1].checkpoint)))[0]
    weights = {n: state[f"weights.{n}"] for n in parameter_shapes(spec.architecture)}
    module, length = TransformerLM.of(spec.architecture, weights), MODEL["context_length"]
    right, right_norm = 0, 0
    for question, answer in enumerate(choices.answers):
        numbers = np.flatnonzero(choices.questions == question)
        sums = []
        for n in numbers:
            ids = torch.from_numpy(choices.tokens[choices.bounds[n] : choices.bounds[n + 1]])
            ids, k = ids[-(length + 1) :], int(choices.lengths[n])
            log_p = module(ids[None, None, :-1])[0, 0].log_softmax(-1).detach()
            sums.append(float(log_p[torch.arange(len(ids) - 1), ids[1:]][-k:].sum()))
        right += numbers[np.argmax(sums)] == answer
        right_norm += numbers[np.argmax(sums / choices.characters[numbers])] == answer
    last = reports[-1]
    assert (last.acc, last.acc_norm) == (right / 40, right_norm / 40)
    assert 0 < right != right_norm  # else little was compared
    with pytest.raises(ValueError, match="needs examples and questions"):
        Engine(tokens, tokens).add_trial("0", asked)
