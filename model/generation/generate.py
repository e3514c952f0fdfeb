"""Generation of text from trained models, token by token: the texts of a stack grow together.

K = models, B = texts of each, R = slots of a generating stack, S = tokens of a source,
V = vocabulary.

Every text has its own slot; the slots of one model share its weights. The rounding of a matrix
product depends on the number of its rows, which are those of one slot. A text is therefore equal to
the last bit, whatever texts are generated beside it.

A language model sees at most `context_length` tokens. When a text has filled the context, its last
half context is read again and becomes the new context: one such reading for every half context, and
the model always sees at least half a context. Of a longer prompt, the last `context_length` tokens
are read. A target of an encoder–decoder ends with its context.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product, zip_longest

import numpy as np
import torch
from torch import Tensor

from model.corpus.dataset import Ints
from model.generation.kv_cache import CachedModel, capacity_of
from model.generation.sampling import RandomStream, choose, filtered
from model.generation.settings import GenerationSettings
from model.network.layers import Weights
from model.spec.architecture import Architecture, parameter_shapes

ENDED = -1  # instead of an id: the text has ended
_ALIGNMENT = 64  # floats, as in `model.stack`: the rows of all slots have equal alignment

Ids = Sequence[int]


def stack_weights(
    a: Architecture, models: Sequence[Mapping[str, Tensor]], device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Stack the weights of single models.

    Args:
        a: architecture of all models.
        models: weights by the names of `parameter_shapes`, without K.
        device: of the stack.

    Returns:
        The same names, each with a leading K.
    """
    stacked = {}
    for name, shape in parameter_shapes(a).items():
        count = math.prod(shape)
        padded = _ALIGNMENT * math.ceil(count / _ALIGNMENT)
        rows = torch.zeros(len(models), padded, device=device, dtype=models[0][name].dtype)
        for row, model in zip(rows, models, strict=True):
            row[:count] = model[name].detach().reshape(-1).to(device)
        stacked[name] = rows[:, :count].view(-1, *shape)
    return stacked


def generate(
    a: Architecture,
    weights: Weights,
    prompts: Sequence[Sequence[Ids]],
    settings: GenerationSettings,
    *,
    numbers: Sequence[int] | None = None,
    ends: Collection[int] = (),
) -> Iterator[Ints]:
    """Continue prompts, or translate them if the models have an encoder.

    A text depends neither on the other texts nor on their number.

    Args:
        a: architecture of all models.
        weights: of the models, from `stack_weights`.
        prompts: K times B prompts, as ids; an empty prompt begins a document. With an encoder they
            are sources, cut after `source_length` − 1 ids.
        settings: of the generation.
        numbers: number of the random stream of each of the B texts; by default 0 … B−1.
        ends: ids that end a text; empty for that of the end of text alone.

    Yields:
        After each step, the new tokens, (K, B) int64; ENDED for a text that has ended, by one of
        these ids or by the end of an encoder–decoder's context.

    Raises:
        ValueError: if the prompts do not fit the weights.
    """
    num_models, batch = len(next(iter(weights.values()))), len(prompts[0])
    if len(prompts) != num_models or any(len(texts) != batch or not texts for texts in prompts):
        raise ValueError(f"there must be equally many prompts for each of {num_models} models")
    streams = [*(range(batch) if numbers is None else numbers)]
    # Bits may depend on the size of the cache, too. Each text therefore gets the size that it would
    # get alone, and texts of equal sizes (and, with several texts a model, of one model) share a
    # stack.
    stacks: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for k, b in product(range(num_models), range(batch)):
        size = capacity_of(a, max(1, len(prompts[k][b])) + settings.max_tokens)
        stacks.setdefault((size, k if batch > 1 else 0), []).append((k, b))
    generators = []
    for (size, _), texts in stacks.items():
        stack_prompts = [prompts[k][b] for k, b in texts]
        stream = RandomStream(settings.seed, [streams[b] for _, b in texts])
        slot_weights = _weights_of_texts(a, weights, [k for k, _ in texts])
        generators.append(
            _generate(
                a, slot_weights, stack_prompts, settings, stream, size, ends or {a.end_of_text}
            )
        )
    for steps in zip_longest(*generators):
        written = np.full((num_models, batch), ENDED, np.int64)
        for texts, step in zip(stacks.values(), steps, strict=True):
            if step is not None:
                written[tuple(zip(*texts, strict=True))] = step
        yield written


def _weights_of_texts(a: Architecture, weights: Weights, models: Sequence[int]) -> Weights:
    """Return the weights of a stack with a slot for each text, given the model of each text."""
    num_models = len(next(iter(weights.values())))
    if [*models] == [*range(num_models)]:
        return weights
    if len(set(models)) == 1:  # many views of one model
        k = models[0]
        return {n: w[k : k + 1].expand(len(models), *w.shape[1:]) for n, w in weights.items()}
    device = next(iter(weights.values())).device
    return stack_weights(a, [{name: w[k] for name, w in weights.items()} for k in models], device)


def _generate(
    a: Architecture,
    weights: Weights,
    prompts: Sequence[Ids],
    settings: GenerationSettings,
    stream: RandomStream,
    capacity: int,
    ends: Collection[int],
) -> Iterator[Ints]:
    """Generate the texts of one stack, one in each slot: yield (R,) int64 after each step."""
    sources = _sources(a, prompts, weights) if a.n_encoder_layers else None
    texts = [[*(() if a.n_encoder_layers else prompt)] or [a.end_of_text] for prompt in prompts]
    model = CachedModel(a, weights, capacity, sources)
    seen = torch.zeros(len(texts), a.vocab_size, dtype=torch.bool)
    for row, text in enumerate(texts):
        seen[row, text] = True
    logits = model.restart(dict(enumerate(text[-a.context_length :] for text in texts)))
    live = set(range(len(texts)))
    for place in range(settings.max_tokens):
        if place:
            logits = _advance(a, model, texts, live)
        ids = choose(filtered(logits, seen, settings), settings, stream, place)  # (R,)
        live -= {row for row in live if int(ids[row]) in ends}
        yield _written(ids, live)
        for row in live:
            texts[row].append(int(ids[row]))
            seen[row, ids[row]] = True
        if not live or (sources is not None and len(texts[min(live)]) > a.context_length):
            return


def _advance(
    a: Architecture, model: CachedModel, texts: Sequence[Sequence[int]], live: set[int]
) -> Tensor:
    """Return logits (R, V) after the newest token of each live text; restart full contexts."""
    full = {row for row in live if model.lengths[row] == a.context_length}
    half = max(1, a.context_length // 2)
    if not full:
        return model.extend({row: texts[row][-1] for row in live})
    restarted = model.restart({row: texts[row][-half:] for row in full})
    if full == live:
        return restarted
    others = model.extend({row: texts[row][-1] for row in live - full})
    is_full = torch.tensor([row in full for row in range(len(texts))], device=model.device)
    return torch.where(is_full.unsqueeze(-1), restarted, others)


def _written(ids: Tensor, live: set[int]) -> Ints:
    """Return the ids of texts that continue, and ENDED for the others, (R,)."""
    tokens = np.full(len(ids), ENDED, np.int64)
    rows = sorted(live)
    tokens[rows] = ids.numpy()[rows]
    return tokens


def _sources(a: Architecture, prompts: Sequence[Ids], weights: Weights) -> Tensor:
    """Return the encoder's input, (R, 1, S): each source with its end of text and padding."""
    cut = [[*prompt[: a.source_length - 1], a.end_of_text] for prompt in prompts]
    padded = [[[*row, *[a.end_of_text] * (a.source_length - len(row))]] for row in cut]
    return torch.tensor(padded, device=next(iter(weights.values())).device)
