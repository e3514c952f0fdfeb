"""GGUF exports against llama.cpp itself, where llama-cpp-python is installed (docs/export.md)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.exchange.format import TrainedModel
from model.exchange.registry import export
from model.generation.generate import generate, stack_weights
from model.generation.settings import GenerationSettings
from model.network.transformer import LanguageModel
from model.spec.data import END_OF_TEXT
from model.tokenizer.tokenizer import Tokenizer
from tests.model.exchange.test_export import LLAMAS, VOCAB, library_text, tokenizer, trained

llama_cpp = pytest.importorskip("llama_cpp")
__all__ = ["tokenizer", "trained"]  # fixtures

KINDS = {name: entries for name, entries in LLAMAS.items() if name != "geglu"}
PATTERNS = ("gpt2", "llama3", "qwen2", "smollm")
WRITTEN = 100


def opened(model: TrainedModel, folder: Path) -> Any:
    export("gguf", model, folder)
    length = model.architecture.context_length
    # its cache of keys and values has float16 by default
    return llama_cpp.Llama(
        str(folder / "model.gguf"), n_ctx=length, logits_all=True, n_threads=1, verbose=False,
        type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32, flash_attn=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_model_equals_llama_cpp(name: str, trained: Any, tmp_path: Path) -> None:
    """Logits of a text, and what is written greedily."""
    model = trained(**KINDS[name], context_length=128)
    a, theirs = model.architecture, opened(model, tmp_path / "out")
    ids = torch.randint(VOCAB, (24,), generator=torch.Generator().manual_seed(0))
    weights = stack_weights(a, [model.weights])
    ours = LanguageModel(a)(weights, ids.view(1, 1, -1))[0, 0].numpy()
    theirs.eval(ids.tolist())
    found = np.array(theirs.scores[: len(ids)])
    difference = np.abs(found - ours).max()
    endless = a.model_copy(update={"end_of_text": -1})
    settings = GenerationSettings(temperature=0, max_tokens=WRITTEN)
    prompt = ids[:5].tolist()
    written = [int(step[0, 0]) for step in generate(endless, weights, [[prompt]], settings)]
    theirs.reset()
    greedy = []
    for token in theirs.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
        greedy.append(token)
        if len(greedy) == WRITTEN:
            break
    # llama.cpp takes tanh-gelu from a table in float16
    assert difference <= (1e-3 if a.activation == "gelu_tanh" else 1e-5)
    assert greedy == written


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
def test_ids_equal_those_of_llama_cpp(
    pattern: str, trained: Any, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    text = library_text(50_000)[:50_000] + "日本語 русский ½ x² 🙂 'LL I'll 12345\r\n\t \n  "
    same = Tokenizer(tokenizer.vocab, tokenizer.merges, [END_OF_TEXT], pattern)
    theirs = opened(replace(trained(), tokenizer=same), tmp_path / "out")
    assert theirs.tokenize(text.encode(), add_bos=False, special=True) == same.encode(text)
    assert theirs.token_eos() == same.encode(END_OF_TEXT)[0]
