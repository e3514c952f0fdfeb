"""The cache against reading everything again, over all architectures; and the law."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.generation.generate import stack_weights
from model.generation.kv_cache import CHUNK, CachedModel, capacity_of
from model.network.encoder_decoder import EncoderDecoder
from model.network.transformer import LanguageModel
from model.spec.architecture import Architecture
from tests.model.architectures import PAIRED, SINGLE, mixes, paired_mixes
from tests.model.network.test_choices import SMALL, weights_of

LONG = 37  # tokens: more than a pass reads


def single(a: Architecture, k: int) -> list[dict[str, Tensor]]:
    """Weights of k models in float32, without K."""
    stacked = weights_of(a, k)
    return [{name: w[slot].float() for name, w in stacked.items()} for slot in range(k)]


def texts_of(a: Architecture, rows: int) -> list[list[int]]:
    """Few different ids, so that a document ends here and there."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(6, (rows, a.context_length), generator=generator).tolist()


def sources_of(a: Architecture, k: int, batch: int = 1) -> Tensor | None:
    if not a.n_encoder_layers:
        return None
    generator = torch.Generator().manual_seed(5)
    sources = torch.randint(1, 6, (k, batch, a.source_length), generator=generator)
    lengths = torch.randint(a.source_length, (k, batch, 1), generator=generator)
    return sources.where(torch.arange(a.source_length) < lengths, 0)


def read_bit_by_bit(
    a: Architecture,
    models: list[dict[str, Tensor]],
    texts: list[list[int]],
    starts: list[int],
    sources: Tensor | None = None,
) -> dict[tuple[int, int], Tensor]:
    """Logits by slot and tokens read: some tokens at once, then one by one."""
    cached = CachedModel(a, stack_weights(a, models), capacity_of(a, a.context_length), sources)
    logits = cached.restart({row: texts[row][:start] for row, start in enumerate(starts)})
    found = {(row, start): logits[row] for row, start in enumerate(starts)}
    while True:
        at = enumerate(cached.lengths)
        going = {row: texts[row][length] for row, length in at if length < a.context_length}
        if not going:
            return found
        logits = cached.extend(going)
        found |= {(row, cached.lengths[row]): logits[row] for row in going}


def assert_equals_recompute(a: Architecture) -> None:
    """Slots that begin with different lengths, so that they are never at the same place."""
    k = 4
    models, texts, sources = single(a, k), texts_of(a, k), sources_of(a, k)
    starts = [max(1, a.context_length * (row + 1) // 5) for row in range(k)]
    found = read_bit_by_bit(a, models, texts, starts, sources)
    ids, weights = torch.tensor(texts).unsqueeze(1), stack_weights(a, models)
    if sources is None:
        expected = LanguageModel(a)(weights, ids).squeeze(1)
    else:
        expected = EncoderDecoder(a)(weights, ids, sources).squeeze(1)
    assert len(found) == sum(a.context_length - start + 1 for start in starts)
    for (row, length), logits in found.items():
        wanted = expected[row, length - 1]
        assert (logits - wanted).abs().max() < 5e-6 * max(1.0, float(wanted.abs().max()))
        assert logits.argmax() == wanted.argmax()


@pytest.mark.slow
@pytest.mark.parametrize("choice", SINGLE)
def test_cache_equals_recompute(choice: str) -> None:
    assert_equals_recompute(Architecture(**{**SMALL, "context_length": LONG, **SINGLE[choice]}))


@pytest.mark.slow
@pytest.mark.parametrize("choice", PAIRED)
def test_cache_equals_recompute_with_an_encoder(choice: str) -> None:
    assert_equals_recompute(Architecture(**{**SMALL, "context_length": LONG, **PAIRED[choice]}))


@pytest.mark.slow
@settings(max_examples=20)
@given(mix=st.one_of(mixes(), paired_mixes()))
def test_cache_equals_recompute_of_any_mix(mix: dict[str, Any]) -> None:
    assert_equals_recompute(Architecture(vocab_size=263, **mix))


def assert_ignores_neighbours(a: Architecture) -> None:
    """Three models in a stack, whose texts differ in length, and each alone: the same bits."""
    models, texts, sources = single(a, 3), texts_of(a, 3), sources_of(a, 3)
    starts = [1 + (5 * row) % a.context_length for row in range(3)]
    together = read_bit_by_bit(a, models, texts, starts, sources)
    for slot, model in enumerate(models):
        own = slice(slot, slot + 1)
        read = None if sources is None else sources[own]
        alone = read_bit_by_bit(a, [model], texts[own], starts[own], read)
        for (_, length), logits in alone.items():
            assert torch.equal(logits, together[slot, length])


@pytest.mark.slow
@pytest.mark.parametrize("choice", SINGLE)
def test_slot_ignores_its_neighbours(choice: str) -> None:
    a = Architecture(**{**SMALL, "context_length": LONG, **SINGLE[choice]})
    torch.set_num_threads(2)  # the cache must not use them
    assert_ignores_neighbours(a)


@pytest.mark.slow
@settings(max_examples=20)
@given(mix=st.one_of(mixes(), paired_mixes()))
def test_slot_ignores_its_neighbours_in_any_mix(mix: dict[str, Any]) -> None:
    assert_ignores_neighbours(Architecture(vocab_size=263, **mix))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("choice", ["default", "shared kv heads", "relative", "documents"])
def test_cache_on_a_gpu_equals_that_on_a_cpu(choice: str) -> None:
    a = Architecture(**{**SMALL, "context_length": LONG, **SINGLE[choice]})
    models, texts, capacity = single(a, 2), texts_of(a, 2), capacity_of(a, LONG)
    both = []
    for device in ("cpu", "cuda"):
        cached = CachedModel(a, stack_weights(a, models, device), capacity)
        cached.restart({0: texts[0][:35], 1: texts[1][:3]})
        both.append(
            cached.extend({row: text[cached.lengths[row]] for row, text in enumerate(texts)})
        )
    assert (both[0] - both[1].cpu()).abs().max() < 1e-3


def test_cross_attention_reads_the_source_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of the source are projected in the first pass, and of nothing afterwards."""
    import model.network.layers as layers  # noqa: PLR0402 - to watch its name of `linear`

    seen: list[int] = []
    linear = layers.linear

    def watched(w: Tensor, x: Tensor) -> Tensor:
        seen.append(x.shape[2])
        return linear(w, x)

    a = Architecture(**{**SMALL, "context_length": 9, **PAIRED["default"]})
    models, sources = single(a, 1), sources_of(a, 1)
    cached = CachedModel(a, stack_weights(a, models), CHUNK, sources)
    monkeypatch.setattr(layers, "linear", watched)
    cached.restart({0: [0]})
    assert seen.count(a.source_length) == 2 * a.n_layers
    del seen[:]
    cached.extend({0: 1})
    assert set(seen) == {0, 1}


@pytest.mark.parametrize(
    ("length", "context", "capacity"),
    [(1, 64, 32), (32, 64, 32), (33, 64, 64), (900, 64, 64), (900, 100, 128), (129, 4096, 256)],
)
def test_capacity_holds_the_text_or_the_context(length: int, context: int, capacity: int) -> None:
    a = Architecture(**{**SMALL, "context_length": context})
    assert capacity_of(a, length) == capacity
