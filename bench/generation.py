"""Speed of text generation: with the cache, and without it (all tokens are read for each token).

    python bench/generation.py

Greedy, on one core, from an empty prompt to a full context. Weights are random: a trained model has
the same speed. Numbers are medians of three alternating runs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from model.generation.generate import generate, stack_weights
from model.generation.settings import GenerationSettings
from model.network.transformer import LanguageModel, initial_weight
from model.spec.architecture import Architecture, parameter_shapes

MODELS = {
    "lm.yaml": Architecture(vocab_size=2048, d_model=64, n_layers=2, n_heads=4, context_length=64),
    "larger": Architecture(vocab_size=8192, d_model=512, n_layers=8, n_heads=8, context_length=512),
}
Write = Callable[[Architecture, Mapping[str, Tensor], int], int]
RUNS = 3
MOST_UNCACHED = 128  # tokens without the cache: the larger model takes too long


def uncached(a: Architecture, weights: Mapping[str, Tensor], count: int) -> int:
    """Generate tokens of one text, reading all tokens again for each; return their number."""
    ids = torch.zeros(len(next(iter(weights.values()))), 1, 1, dtype=torch.int64)
    model = LanguageModel(a)
    with torch.inference_mode():
        for _ in range(count):
            following = model(weights, ids)[:, :, -1:].argmax(-1)
            ids = torch.cat([ids, following], -1)
    return count * len(ids)


def cached(a: Architecture, weights: Mapping[str, Tensor], count: int) -> int:
    """Generate tokens with the cache; return their number."""
    settings = GenerationSettings(temperature=0, max_tokens=count)
    num_slots = len(next(iter(weights.values())))
    return sum(int((ids >= 0).sum()) for ids in generate(a, weights, [[[]]] * num_slots, settings))


def rate(write: Write, a: Architecture, weights: Mapping[str, Tensor], count: int) -> float:
    """Return tokens per second of all models together."""
    began = time.perf_counter()
    return write(a, weights, count) / (time.perf_counter() - began)


def line(name: str, a: Architecture, k: int, count: int) -> str:
    """Measure a row of the table, and return it as text."""
    model = {n: initial_weight(0, n, shape) for n, shape in parameter_shapes(a).items()}
    model["lm_head.weight"][a.end_of_text] = 0  # no text ends early
    weights = stack_weights(a, [model] * k)
    sides = (cached, uncached) if count <= MOST_UNCACHED else (cached,)
    runs = [[rate(side, a, weights, count) for side in sides] for _ in range(RUNS)]
    rates = [statistics.median(column) for column in zip(*runs, strict=True)]
    cells = [f"{value:12,.0f}" for value in rates] + (
        [f"{rates[0] / rates[-1]:8.1f}"] * (len(rates) - 1)
    )
    return f"{name:10}{k:3}{count:8}{''.join(cells)}"


def main() -> None:
    """Print a line for each model, width and length."""
    torch.set_num_threads(1)
    print(f"{'model':10}{'K':>3}{'tokens':>8}{'cached/s':>12}{'uncached/s':>12}{'ratio':>8}")
    for name, a in MODELS.items():
        for k in (1, 3):
            for count in sorted({min(a.context_length, MOST_UNCACHED), a.context_length}):
                print(line(name, a, k, count), flush=True)


if __name__ == "__main__":
    main()
