"""Generation against a loop that reads everything again; what is drawn against transformers."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torch import Tensor
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from model.generation.generate import ENDED, generate, stack_weights
from model.generation.kv_cache import CHUNK
from model.generation.sampling import RandomStream, draw, filtered
from model.generation.settings import GenerationSettings
from model.network.encoder_decoder import EncoderDecoder
from model.network.layers import Weights
from model.network.transformer import LanguageModel
from model.spec.architecture import Architecture
from tests.model.architectures import PAIRED, SINGLE
from tests.model.generation.test_kv_cache import single, sources_of
from tests.model.network.test_choices import SMALL

GREEDY = GenerationSettings(temperature=0, max_tokens=50)
PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6]]


def small(**choices: Any) -> Architecture:
    return Architecture(**{**SMALL, **choices})


def written(a: Architecture, weights: Weights, *args: Any, **options: Any) -> list[list[list[int]]]:
    """The ids of all texts, K times B."""
    steps = np.stack(list(generate(a, weights, *args, **options)), -1)  # (K, B, steps)
    for text in steps.reshape(-1, steps.shape[-1]):
        ended = np.flatnonzero(text == ENDED)
        assert not len(ended) or (text[ended[0] :] == ENDED).all()
    return [[[int(i) for i in text if i != ENDED] for text in own] for own in steps]


def greedy_one(a: Architecture, weights: Weights, prompt: list[int], count: int) -> list[int]:
    """One text of one model; all that it sees is read again for each token."""
    text, begin = list(prompt), max(0, len(prompt) - a.context_length)
    for _ in range(count):
        if len(text) - begin > a.context_length:
            begin = len(text) - a.context_length // 2
        logits = LanguageModel(a)(weights, torch.tensor([[text[begin:]]]))
        text.append(int(logits[0, 0, -1].argmax()))
        if text[-1] == a.end_of_text:
            return text[len(prompt) : -1]
    return text[len(prompt) :]


@pytest.mark.slow
@pytest.mark.parametrize("position", ["rope", "learned", "alibi", "relative"])
@pytest.mark.parametrize("context", [7, 40])
def test_text_beyond_the_context_is_read_again_from_its_half(position: str, context: int) -> None:
    """Three models, whose prompts are of other lengths: each slides at its own time."""
    a = small(position=position, context_length=context, attend_across_documents=False)
    models = single(a, 3)
    texts = written(a, stack_weights(a, models), [[p] for p in PROMPTS], GREEDY)
    for model, prompt, (text,) in zip(models, PROMPTS, texts, strict=True):
        assert text == greedy_one(a, stack_weights(a, [model]), prompt, 50)
    assert any(len(text) == 50 for (text,) in texts)


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["default", "original", "encoder"])
def test_text_does_not_depend_on_other_texts(choice: str) -> None:
    """Of other models and of its own; one of them needs a larger cache."""
    mix = PAIRED["default"] if choice == "encoder" else SINGLE[choice]
    a = small(**{**mix, "context_length": 200})
    draws = GenerationSettings(temperature=2, max_tokens=40, seed=7)
    models = single(a, 3)
    prompts = [[p, p[::-1]] for p in (PROMPTS[0], [1, 2] * CHUNK, PROMPTS[2])]
    together = written(a, stack_weights(a, models), prompts, draws)
    texts = [text for own in together for text in own]
    assert len(set(map(tuple, texts))) == 6
    for model, own, wanted in zip(models, prompts, together, strict=True):
        weights = stack_weights(a, [model])
        assert written(a, weights, [own], draws) == [wanted]
        for number, prompt in enumerate(own):
            alone = written(a, weights, [[prompt]], draws, numbers=[number])
            assert alone == [[wanted[number]]]


def test_texts_of_one_model_are_bit_equal_to_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only in what is drawn, which hides how a product was rounded."""
    a = small(d_model=48, n_heads=4, context_length=64)
    weights = stack_weights(a, single(a, 1))
    kept: list[Tensor] = []

    def keep(logits: Tensor, *args: Any) -> Tensor:
        kept.append(logits.clone())
        return filtered(logits, *args)

    monkeypatch.setattr("model.generation.generate.filtered", keep)
    list(generate(a, weights, [PROMPTS], GREEDY))
    together = torch.stack(kept)  # (steps, B, V)
    for b, prompt in enumerate(PROMPTS):
        del kept[:]
        list(generate(a, weights, [[prompt]], GREEDY))
        assert torch.equal(torch.cat(kept), together[: len(kept), b])


def test_texts_of_equal_numbers_draw_equal_values() -> None:
    a, draws = small(), GenerationSettings(temperature=1, top_p=1, max_tokens=30, seed=1)
    weights = stack_weights(a, single(a, 1) * 2)
    first, second = written(a, weights, [PROMPTS[:1] * 3] * 2, draws, numbers=[0, 1, 0])
    assert first == second
    assert first[0] == first[2] != first[1]
    other = draws.model_copy(update={"seed": 2})
    assert written(a, weights, [PROMPTS[:1] * 3] * 2, other, numbers=[0, 1, 0])[0] != first


def test_no_prompt_begins_a_document() -> None:
    a = small()
    weights = stack_weights(a, single(a, 1))
    assert written(a, weights, [[[]]], GREEDY) == written(a, weights, [[[a.end_of_text]]], GREEDY)


def test_text_ends_at_the_end_of_text() -> None:
    """A model in which each token is followed by the next one, and 5 by the end of text."""
    a = small(n_layers=1, position="none", context_length=64)
    (model,) = single(a, 1)
    model = {name: torch.zeros_like(w) for name, w in model.items()}
    for name in model:
        if name.split(".")[-2].startswith("ln"):
            model[name] += 1
    for token in range(6):  # each says by its own direction what follows it
        model["token_embeddings.weight"][token, token] = 1
        model["lm_head.weight"][(token + 1) % 6, token] = 1
    weights = stack_weights(a, [model])
    assert written(a, weights, [[[1], [3], [5]]], GREEDY) == [[[2, 3, 4, 5], [4, 5], []]]
    steps = list(generate(a, weights, [[[1], [3], [5]]], GREEDY))
    assert len(steps) == 5
    assert [step[0, 2] for step in steps] == [ENDED] * 5


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["default", "relative", "original"])
def test_encoder_decoder_equals_greedy_decoding(choice: str) -> None:
    a = small(**{**PAIRED[choice], "context_length": 12})
    models, sources = single(a, 2), sources_of(a, 2, 3)
    assert sources is not None
    weights = stack_weights(a, models)
    expected = EncoderDecoder(a).greedy(weights, sources, a.context_length)
    prompts = [[[i for i in s.tolist() if i] for s in own] for own in sources]
    for own, wanted in zip(written(a, weights, prompts, GREEDY), expected, strict=True):
        for text, row in zip(own, wanted.tolist(), strict=True):
            assert text == (row[: row.index(0)] if 0 in row else row)


def test_source_that_is_too_long_is_cut() -> None:
    a = small(**PAIRED["default"])
    weights = stack_weights(a, single(a, 1))
    long, cut = ([[[1, 2, 3, 4, 5, 6, 7, 8]]], [[[1, 2, 3, 4, 5]]])
    assert written(a, weights, long, GREEDY) == written(a, weights, cut, GREEDY)


def test_generate_refuses_prompts_that_do_not_fit() -> None:
    a = small()
    weights = stack_weights(a, single(a, 2))
    for prompts in ([[[1]]], [[[1]], [[1], [2]]]):
        with pytest.raises(ValueError, match="equally many prompts for each of 2 models"):
            next(generate(a, weights, prompts, GREEDY))


def test_text_comes_token_by_token() -> None:
    a = small()
    going = generate(a, stack_weights(a, single(a, 2)), [PROMPTS] * 2, GREEDY)
    assert [step.shape for step in islice(going, 3)] == [(2, 3)] * 3


# what is drawn ------------------------------------------------------------------------------------


def rows(count: int, vocabulary: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return 4 * torch.randn(count, vocabulary, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [0, 1, 7, 1000])
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.7])
def test_filters_equal_transformers(
    temperature: float, top_k: int, top_p: float, penalty: float
) -> None:
    logits = rows(5, 300)
    read = torch.randint(300, (5, 20), generator=torch.Generator().manual_seed(0))
    expected = logits.clone()
    if penalty != 1:
        expected = RepetitionPenaltyLogitsProcessor(penalty)(read, expected)
    expected = TemperatureLogitsWarper(temperature)(read, expected)
    if top_k:
        expected = TopKLogitsWarper(top_k)(read, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(read, expected)
    settings = GenerationSettings(
        temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=penalty
    )
    seen = torch.zeros(5, 300, dtype=torch.bool).scatter(1, read, True)
    torch.testing.assert_close(filtered(logits, seen, settings), expected, rtol=1e-12, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("vary", ["place", "seed", "number"])
def test_draws_have_the_probabilities(vary: str) -> None:
    """χ² of 20,000 draws that differ in one thing only; the threshold is one in a million."""
    logits = rows(1, 40)
    probabilities = logits.softmax(-1)[0].numpy()
    count = 20_000
    if vary == "place":
        stream = RandomStream(3, [0])
        uniform = torch.cat([stream.uniform(place) for place in range(count)])
    elif vary == "seed":
        uniform = torch.cat([RandomStream(seed, [0]).uniform(5) for seed in range(count)])
    else:
        uniform = RandomStream(3, range(count)).uniform(5)
    assert 0 <= uniform.min()
    assert uniform.max() < 1
    tokens = draw(logits.expand(count, -1), uniform).numpy()
    observed = np.bincount(tokens, minlength=40)
    often = probabilities * count > 5
    expected = np.append(probabilities[often], probabilities[~often].sum()) * count
    grouped = np.append(observed[often], observed[~often].sum())
    assert stats.chisquare(grouped, expected).pvalue > 1e-6


def test_neighbouring_draws_are_independent() -> None:
    """Pairs of consecutive places, and the same place of two numbers."""
    stream = RandomStream(0, [0, 1])
    uniform = torch.stack([stream.uniform(place) for place in range(20_000)]).numpy()
    for x, y in ((uniform[1:, 0], uniform[:-1, 0]), (uniform[:, 0], uniform[:, 1])):
        counts = np.histogram2d(x, y, bins=10, range=[[0, 1], [0, 1]])[0]
        assert stats.chi2_contingency(counts).pvalue > 1e-6


def test_draw_never_takes_filtered_tokens() -> None:
    """For all random numbers, and where probabilities end below 1 by rounding."""
    logits = rows(1, 50)
    logits[0, ::2] = -math.inf
    uniform = torch.tensor([0.0, 1 - 2.0**-53, *torch.linspace(0, 1, 999).tolist()[1:-1]])
    tokens = draw(logits.expand(len(uniform), -1), uniform.double())
    assert (tokens % 2 == 1).all()
    certain = torch.tensor([[-math.inf, 3.0, -math.inf]])
    assert draw(certain, torch.tensor([1 - 2.0**-53])).tolist() == [1]


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -0.1), ("temperature", math.nan), ("top_k", -1), ("top_p", 0.0),
     ("top_p", 1.1), ("repetition_penalty", 0.0), ("max_tokens", 0), ("seed", -1)],
)  # fmt: skip
def test_settings_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=name):
        GenerationSettings(**{name: value})
