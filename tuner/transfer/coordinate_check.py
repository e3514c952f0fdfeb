"""Coordinate check: do the activations of small and large models have equal sizes?

A necessary condition of transfer, not a sufficient one, and weight decay does not show in it.

Source: Yang et al. 2022, appendix D.1 (arXiv:2203.03466).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from model.spec.schedules import ScheduleContext, learning_rate
from model.spec.trial import TrialSpec
from tuner.conductor.confirmation import interval
from tuner.home.private_folder import private_folder
from tuner.transfer.family import Axis, FamilyMember

if TYPE_CHECKING:  # loads torch
    from model.corpus.corpus import Corpus

STEPS = (1, 3, 10, 50)
# Bounds of OLMo-core's test for the ratio to the largest model.
LOWEST, HIGHEST = 0.3, 2.0
LARGEST_SLOPE = 0.1  # of log size over log width or depth, after the first updates
_HUGE = 1e30  # size of the activations of a model that diverged
_SETTLED = 10  # update from which slopes count; the first ones differ by design (a zero output)
_SEQUENCES = 16  # on which activations are measured
_REGULARIZERS = (
    "dropout", "embedding_dropout", "attention_dropout", "residual_dropout", "token_noise",
    "ema_decay", "target_sparsity",
)  # fmt: skip

# size of a quantity for each update in STEPS, by seed: (seeds, steps)
Sizes = Mapping[str, list[list[float]]]


@dataclass(frozen=True)
class SizeVerdict:
    """How a quantity follows one axis.

    Attributes:
        axis: width or depth.
        quantity: one of `coordinates.QUANTITIES`.
        slope: exponent e in size ∝ (width or depth)^e, the largest of the updates from 10 on.
        half_width: half of its 95 % interval over the seeds.
        ratios: smallest and largest ratio to the largest model, over all sizes and updates.
        is_kept: True if the ratios lie within bounds, and the interval reaches ±0.1.
    """

    axis: Axis
    quantity: str
    slope: float
    half_width: float
    ratios: tuple[float, float]
    is_kept: bool


@dataclass(frozen=True)
class CoordinateCheck:
    """Result of a check.

    Attributes:
        members: the models.
        sizes: sizes of their quantities.
        verdicts: a verdict for each axis and quantity.
    """

    members: Sequence[FamilyMember]
    sizes: Sequence[Sizes]
    verdicts: Sequence[SizeVerdict]

    @property
    def is_kept(self) -> bool:
        """True if all quantities keep their sizes."""
        return all(verdict.is_kept for verdict in self.verdicts)


def check_coordinates(
    spec: TrialSpec,
    corpus: Corpus,
    members: Sequence[FamilyMember],
    *,
    seeds: int = 5,
    steps: Sequence[int] = STEPS,
    device: str = "cpu",
    on_trained: Callable[[int, int], None] = lambda number, count: None,
) -> CoordinateCheck:
    """Train models of a family for a few updates, and compare the sizes of their activations.

    Args:
        spec: a trial of the search, whose hyperparameters they have, without regularization and at
            the peak of its learning rate.
        corpus: prepared data.
        members: the models, from `family`; language models.
        seeds: seeds of each model.
        steps: updates after which activations are measured.
        device: device to train on.
        on_trained: called with the number of trained models and their count.
    """
    sizes: list[Sizes] = []
    for number, member in enumerate(members, start=1):
        sizes.append(_measure(_specs(spec, member, seeds, steps), corpus, device, len(steps)))
        on_trained(number, len(members))
    verdicts = [
        _verdict(axis, quantity, steps, [s for m, s in pairs if m.axis == axis], [
            m.size for m, _ in pairs if m.axis == axis
        ])
        for pairs in [list(zip(members, sizes, strict=True))]
        for axis in dict.fromkeys(m.axis for m in members)
        if len([m for m in members if m.axis == axis]) > 1
        for quantity in sizes[0]
    ]  # fmt: skip
    return CoordinateCheck(members, sizes, verdicts)


def _specs(
    spec: TrialSpec, member: FamilyMember, seeds: int, steps: Sequence[int]
) -> list[TrialSpec]:
    """Return a specification for each seed and number of updates, seeds first.

    The rate is constant, so that a training of 10 updates begins as one of 50 does.
    """
    h, d_model = spec.hyperparameters, spec.value_of("d_model")
    context = ScheduleContext(d_model)
    rates = (learning_rate(step, h, context) for step in range(1, h.total_steps + 1))
    changes: dict[str, Any] = dict.fromkeys(_REGULARIZERS, 0.0)
    changes |= {"schedule": "constant", "learning_rate": max(rates), "warmup_steps": 0}
    made = []
    for seed in range(seeds):
        for total in steps:
            epochs = math.ceil(total * h.batch_size / spec.train_sequences)
            own = h.model_copy(update={**changes, "total_steps": total, "epochs": epochs})
            made.append(spec.model_copy(update={
                "hyperparameters": own, "architecture": member.architecture, "seed": seed,
                "report_tokens": total * spec.tokens_per_step, "init_from": None,
                "continues": None, "validation_sequences": 1,
            }))  # fmt: skip
    return made


def _measure(specs: Sequence[TrialSpec], corpus: Corpus, device: str, num_steps: int) -> Sizes:
    import torch

    from model.checkpoints import checkpoint
    from model.engine.engine import Engine
    from model.network.coordinates import QUANTITIES, coordinates
    from model.spec.architecture import parameter_shapes

    a = specs[0].architecture
    length = a.context_length
    validation = corpus.splits[1]
    assert isinstance(validation, np.ndarray), "tokens of a language model"
    tokens = validation[: _SEQUENCES * length].astype(np.int64)
    ids = torch.from_numpy(tokens[: len(tokens) // length * length]).view(1, -1, length)
    found: dict[int, dict[str, float]] = {}
    with private_folder() as folder:
        engine = Engine(
            *corpus.splits, slots=1, device=device, checkpoint_dir=folder, choices=corpus.choices
        )
        for report in engine.run(specs):
            if report.checkpoint is None:  # diverged
                found[int(report.trial_id)] = dict.fromkeys(QUANTITIES, _HUGE)
                continue
            state = checkpoint.read(Path(report.checkpoint))[0]
            weights = {name: state[f"weights.{name}"][None] for name in parameter_shapes(a)}
            each = coordinates(a, weights, ids)
            found[int(report.trial_id)] = {name: float(each[name]) for name in QUANTITIES}
    return {
        name: [
            [found[first + at][name] for at in range(num_steps)]
            for first in range(0, len(specs), num_steps)
        ]
        for name in QUANTITIES
    }


def _verdict(
    axis: Axis, quantity: str, steps: Sequence[int], sizes: Sequence[Sizes], at: Sequence[int]
) -> SizeVerdict:
    """Judge one quantity of the models of one axis, which lie at some widths or depths."""
    values = np.array([size[quantity] for size in sizes])  # (models, seeds, steps)
    values = np.nan_to_num(values, nan=_HUGE, posinf=_HUGE)
    means = values.mean(1)
    ratios = means[:-1] / means[-1]
    logs = np.log(values).reshape(len(at), -1)
    slopes = np.polynomial.polynomial.polyfit(np.log(at), logs, 1)[1].reshape(values.shape[1:])
    late = [i for i, step in enumerate(steps) if step >= _SETTLED] or [len(steps) - 1]
    worst = max(late, key=lambda i: abs(float(slopes[:, i].mean())))
    own = [float(slope) for slope in slopes[:, worst]]
    half = interval(own).half if len(own) > 1 else 0.0
    low, high = float(ratios.min()), float(ratios.max())
    is_bounded = low >= LOWEST and high <= HIGHEST
    slope = fmean(own)
    is_kept = is_bounded and abs(slope) - half <= LARGEST_SLOPE
    return SizeVerdict(axis, quantity, slope, half, (low, high), is_kept)
