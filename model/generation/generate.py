"""Text from trained models, token by token: the sequences of a stack grow together.

K = models, B = texts of each, R = slots of a stack that writes, S = tokens of a source,
V = vocabulary.

Every text has a slot of its own, those of one model share its weights. Matrix products round by
the number of rows; so a text is the same to the last bit, whatever is written beside it.

A language model sees at most `context_length` tokens. A text that grows beyond it is read again
from half a context before its end on; so it costs one such reading for every half a context, and
the model always sees at least half a context. A prompt that is longer is seen from a whole context
before its end on. A target of an encoder–decoder ends with its context.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product, zip_longest

import numpy as np
import torch
from torch import Tensor

from model.corpus.dataset import Ints
from model.generation.kv_cache import CachedModel, capacity_of
from model.generation.sampling import Dice, choose, filtered
from model.generation.settings import GenerationSettings
from model.network.layers import Weights
from model.spec.architecture import Architecture, parameter_shapes

ENDED = -1  # in place of an id: the text has ended
_ALIGNMENT = 64  # floats, as in `stack`: rows of all slots are aligned alike

Ids = Sequence[int]


def stack_weights(
    a: Architecture, models: Sequence[Mapping[str, Tensor]], device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """The weights of single models as those of a stack.

    Args:
        a: the architecture of all.
        models: by the names of `parameter_shapes`, without K.
        device: where the stack is to lie.

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
) -> Iterator[Ints]:
    """Continue prompts, or translate them if the models have an encoder.

    A text does not depend on the others, nor on how many there are.

    Args:
        a: the architecture of all models.
        weights: as `stack_weights` gives them.
        prompts: K times B prompts, as ids; one without ids begins a document. With an encoder they
            are sources, of which what exceeds `source_length` − 1 ids is cut.
        settings: how to write.
        numbers: of the dice that each of the B texts throws; by default 0 … B−1.

    Yields:
        After each step, the tokens that were written, (K, B) int64; ENDED for a text that has
        ended, by the end-of-text token or by the end of an encoder–decoder's context.

    Raises:
        ValueError: if the prompts do not fit the weights.
    """
    num_models, batch = len(next(iter(weights.values()))), len(prompts[0])
    if len(prompts) != num_models or any(len(own) != batch or not own for own in prompts):
        raise ValueError(f"there must be equally many prompts for each of {num_models} models")
    thrown = [*(range(batch) if numbers is None else numbers)]
    # Bits may depend on the size of a cache too, so each text has the size that it needs alone.
    stacks: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for k, b in product(range(num_models), range(batch)):
        size = capacity_of(a, max(1, len(prompts[k][b])) + settings.max_tokens)
        stacks.setdefault((size, k if batch > 1 else 0), []).append((k, b))
    going = []
    for (size, _), texts in stacks.items():
        own = _of_texts(a, weights, [k for k, _ in texts])
        asked = [prompts[k][b] for k, b in texts]
        dice = Dice(settings.seed, [thrown[b] for _, b in texts])
        going.append(_generate(a, own, asked, settings, dice, size))
    for steps in zip_longest(*going):
        written = np.full((num_models, batch), ENDED, np.int64)
        for texts, step in zip(stacks.values(), steps, strict=True):
            if step is not None:
                written[tuple(zip(*texts, strict=True))] = step
        yield written


def _of_texts(a: Architecture, weights: Weights, models: Sequence[int]) -> Weights:
    """The weights of a stack that has a slot for each text, given the model of each."""
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
    dice: Dice,
    capacity: int,
) -> Iterator[Ints]:
    """The same of one stack, a text for each slot: (R,) int64 after each step."""
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
        ids = choose(filtered(logits, seen, settings), settings, dice, place)  # (R,)
        live -= {row for row in live if ids[row] == a.end_of_text}
        yield _written(ids, live)
        for row in live:
            texts[row].append(int(ids[row]))
            seen[row, ids[row]] = True
        if not live or (sources is not None and len(texts[min(live)]) > a.context_length):
            return


def _advance(
    a: Architecture, model: CachedModel, texts: Sequence[Sequence[int]], live: set[int]
) -> Tensor:
    """Logits (R, V) after the newest token of each live text; a full context begins anew."""
    full = {row for row in live if model.lengths[row] == a.context_length}
    half = max(1, a.context_length // 2)
    if not full:
        return model.extend({row: texts[row][-1] for row in live})
    begun = model.restart({row: texts[row][-half:] for row in full})
    if full == live:
        return begun
    others = model.extend({row: texts[row][-1] for row in live - full})
    is_full = torch.tensor([row in full for row in range(len(texts))], device=model.device)
    return torch.where(is_full.unsqueeze(-1), begun, others)


def _written(ids: Tensor, live: set[int]) -> Ints:
    """The ids of texts that go on, and ENDED for the others, (R,)."""
    tokens = np.full(len(ids), ENDED, np.int64)
    going = sorted(live)
    tokens[going] = ids.numpy()[going]
    return tokens


def _sources(a: Architecture, prompts: Sequence[Ids], weights: Weights) -> Tensor:
    """What an encoder reads, (R, 1, S): each with its end of text and padding."""
    cut = [[*prompt[: a.source_length - 1], a.end_of_text] for prompt in prompts]
    padded = [[[*row, *[a.end_of_text] * (a.source_length - len(row))]] for row in cut]
    return torch.tensor(padded, device=next(iter(weights.values())).device)
