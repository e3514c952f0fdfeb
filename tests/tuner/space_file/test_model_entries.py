"""The entries of `model:` that are no sizes: names, true and false, and their mistakes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from model.corpus.prepare import prepare
from model.spec.architecture import Architecture
from model.spec.data import DataConfig, TokenizerConfig
from tuner.commands.validate import print_explanation
from tuner.errors import SpaceError
from tuner.home.home import Home
from tuner.samplers.sampler import Sampler
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space
from tuner.summaries.search_table import follows_other
from tuner.terminal.console import PlainConsole
from tuner.texts.formatting import number
from tuner.validation.explanation import explain

FACTS = DataFacts(300, 100_000, 10_000, "data", "tokenizer")
BUDGET = "budget: {tokens: 20000, reports: 4}\n"


def load(folder: Path, model: str) -> SearchSpace:
    (folder / "space.yaml").write_text(f"{BUDGET}model: {{{model}}}\n", encoding="utf-8")
    return load_space(folder / "space.yaml")


@pytest.mark.parametrize(
    ("entry", "name", "value"),
    [
        ("n_kv_heads: 2", "n_kv_heads", 2),
        ("activation: geglu", "activation", "geglu"),
        ("position: {value: alibi}", "position", "alibi"),
        ("norm: layernorm", "norm", "layernorm"),
        ("norm_placement: post", "norm_placement", "post"),
        ("qk_norm: true", "qk_norm", True),
        ("tied_embeddings: True", "tied_embeddings", True),
        ("logit_soft_cap: 30", "logit_soft_cap", 30.0),
        ("logit_soft_cap: off", "logit_soft_cap", 0.0),
        ("attend_across_documents: false", "attend_across_documents", False),
    ],
)
def test_model_entry_reaches_the_specification(
    tmp_path: Path, entry: str, name: str, value: Any
) -> None:
    space = load(tmp_path, entry)
    assert SearchSpace.model_validate_json(space.model_dump_json()) == space
    a = space.spec({}, FACTS, 0).architecture
    assert getattr(a, name) == value
    assert type(getattr(a, name)) is type(value)
    plain = Architecture(vocab_size=300).model_dump()
    assert a.model_dump() == plain | {name: value}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("norm: batchnorm", "norm must be rmsnorm or layernorm, got batchnorm"),
        ("position: alibis", "got alibis; did you mean alibi?"),
        (
            "position: {uniform: [0, 1]}",
            "it is a name, not a number; use choice",
        ),
        ("qk_norm: {int: [0, 1]}", "it is true or false, not a number; use choice instead of int"),
        ("qk_norm: yes", "qk_norm must be true or false, got yes"),
        ("qk_norm: 1", "qk_norm must be true or false, got 1"),
        ("n_kv_heads: true", "n_kv_heads must be a whole number, got true"),
        ("tied: true", "unknown entry of model: tied"),
        ("logit_soft_cap: -1", "logit_soft_cap must be at least 0, got -1"),
        ("n_kv_heads: {choice: [1, 3]}", "n_heads must be a multiple of n_kv_heads"),
        (
            "d_model: 60, position: {choice: [alibi, rope]}",
            "must be even with position",
        ),
        ("d_model: {choice: [64, 66]}, n_heads: 1", "d_model must be a multiple of 4, got 66"),
        (
            "position: alibi, rope_theta: 500",
            "rope_theta has no effect with position alibi; it is used with position rope",
        ),
        ("d_ff: {value: 96, when: {qk_norm: true}}", "qk_norm is never true; it is false"),
        (
            "n_heads: 2, qk_norm: {value: true, when: {n_kv_heads: 2}}",
            "when: n_kv_heads is derived from n_heads; give its values, or use n_heads in",
        ),
        ("source_length: 9", "source_length has no effect without an encoder"),
        ("n_encoder_layers: 1, attend_across_documents: false", "sequences are never joined"),
        (
            "n_encoder_layers: {choice: [0, 1]}",
            "space.yaml:2:27 n_encoder_layers needs data of pairs; set data.pairs: true",
        ),
    ],
)
def test_model_entry_is_refused_with_the_reason(tmp_path: Path, model: str, message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        load(tmp_path, model)
    assert message in str(caught.value)


def test_pairs_need_an_encoder(tmp_path: Path) -> None:
    pairs = f"{BUDGET}data: {{source: python-docstrings, pairs: true}}\n"
    for model in ("", "model: {n_encoder_layers: {choice: [0, 1]}}\n"):
        (tmp_path / "space.yaml").write_text(pairs + model, encoding="utf-8")
        with pytest.raises(SpaceError, match=r"space.yaml:2:.* data.pairs needs an encoder"):
            load_space(tmp_path / "space.yaml")


def test_each_pair_is_a_sequence(tmp_path: Path) -> None:
    """Whatever its length: budgets count the places of the target."""
    text = (
        "data: {source: python-docstrings, pairs: true}\nbudget: {tokens: 20000, reports: 4}\n"
        "model: {n_encoder_layers: 1, source_length: 50, context_length: 20}\n"
        "hyperparameters: {B: 10}\n"
    )
    (tmp_path / "space.yaml").write_text(text, encoding="utf-8")
    space = load_space(tmp_path / "space.yaml")
    facts = DataFacts(300, 700, 40, "data", "tokenizer", has_pairs=True)
    spec = space.spec({}, facts, 0)
    assert spec.train_sequences == 700
    assert spec.validation_sequences == 40
    assert spec.tokens_per_step == 200
    assert spec.hyperparameters.total_steps == 100
    assert spec.hyperparameters.epochs == 2


def test_rope_theta_may_be_given_where_rope_is_drawn(tmp_path: Path) -> None:
    space = load(
        tmp_path,
        "position: {choice: [alibi, rope]}, "
        "rope_theta: {choice: [100, 500], when: {position: rope}}",
    )
    assert [(a.position, a.rope_theta) for a in space.shapes(300)] == [
        ("alibi", 10_000), ("rope", 100), ("rope", 500),
    ]  # fmt: skip


def test_first_trial_has_the_defaults_of_the_model(tmp_path: Path) -> None:
    """As many key heads as heads: the most that may be drawn."""
    space = load(
        tmp_path,
        "n_kv_heads: {choice: [1, 4, 2]}, qk_norm: {choice: [true, false]}, "
        "position: {grid: [none, rope]}, tied_embeddings: {choice: [true]}",
    )
    first = {"n_kv_heads": 4, "qk_norm": False, "position": "rope", "tied_embeddings": True}
    assert space.defaults() == first


@pytest.mark.parametrize(
    ("model", "name", "first", "is_moved"),
    [
        ("d_ff: {choice: [128, 192, 256]}", "d_ff", 192, False),
        ("d_ff: {choice: [128, 256, 288]}, activation: gelu", "d_ff", 288, False),
        ("d_ff: {choice: [192, 320]}, d_model: {grid: [128, 256]}", "d_ff", 320, False),
        ("d_ff: {choice: [64, 256]}", "d_ff", 256, True),
        ("n_kv_heads: {choice: [1, 2]}", "n_kv_heads", 2, True),
        ("n_kv_heads: {choice: [1, 2]}, n_heads: 2", "n_kv_heads", 2, False),
        ("n_heads: {choice: [8, 16]}, n_kv_heads: {choice: [2, 8]}", "n_kv_heads", 8, False),
    ],
)
def test_first_trial_derives_what_follows_from_other_entries(
    tmp_path: Path, model: str, name: str, first: int, is_moved: bool
) -> None:
    """0 in the architecture means that it follows, and is no number to be near to."""
    space = load(tmp_path, model)
    assert space.defaults()[name] == first
    assert (name in [p.name for p in space.moved()]) is is_moved


def test_searcher_draws_names_and_booleans(tmp_path: Path) -> None:
    space = load(
        tmp_path,
        "position: {choice: [rope, alibi]}, qk_norm: {choice: [false, true]}, "
        "logit_soft_cap: {choice: [off, 15.0], when: {qk_norm: false}}",
    )
    sampler = Sampler(space, 5_000, 20_000)
    drawn = [space.spec(sampler.suggest(n), FACTS, seed=0).architecture for n in range(60)]
    seen = {(a.position, a.qk_norm, a.logit_soft_cap) for a in drawn}
    assert seen == {
        (p, *c) for p in ("rope", "alibi") for c in ((False, 0), (False, 15), (True, 0))
    }


def test_validate_distinguishes_stacks_of_one_size(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    for name in "abc":
        (tmp_path / "text" / f"{name}.txt").write_text("some words to read\n" * 500)
    model = "position: {choice: [rope, alibi]}, qk_norm: {choice: [false, true]}"
    (tmp_path / "space.yaml").write_text(f"{BUDGET}model: {{{model}}}\ndata: {{files: [text/]}}\n")
    console = PlainConsole(width=200, record=True)
    about = explain(load_space(tmp_path / "space.yaml"), Home.of(tmp_path / "home"))
    print_explanation(console, about, "space.yaml")
    assert list(about.as_json["stacks"])[1] == (
        "2 layers of 64, 4 heads, position rope, qk_norm true, context 64"
    )
    assert len(about.stacks) == 4
    assert "position alibi, qk_norm false" in console.export_text()


def test_show_leaves_out_rows_that_only_follow_another_one() -> None:
    def trials(*attention: str) -> Any:
        return [SimpleNamespace(parameters={"dropout": "0.1", "attention_dropout": p,
                                            "min_learning_rate": "0.1"})
                for p in attention]  # fmt: skip

    assert follows_other("attention_dropout", trials("0.1", "0.1"))
    assert not follows_other("attention_dropout", trials("0.1", "0.2"))
    assert not follows_other("dropout", trials("0.1"))
    assert not follows_other("min_learning_rate", trials("0.1"))
    assert not follows_other("n_heads", trials("0.1"))
    shares = [{"warmup_steps": w, "total_steps": t} for w, t in (("3", "62"), ("2", "31"))]
    assert follows_other("warmup_steps", cast(Any, [SimpleNamespace(parameters=p) for p in shares]))


def test_number_writes_booleans_as_yaml_does() -> None:
    assert [number(v) for v in (True, False, 1, 0.5)] == ["true", "false", "1", "0.5"]


def test_end_of_text_is_a_fact_of_the_corpus(tmp_path: Path) -> None:
    """Not an entry of `model:`: like the vocabulary it follows from the tokenizer."""
    space = load(tmp_path, "attend_across_documents: false")
    assert space.spec({}, FACTS, 0).architecture.end_of_text == 0
    facts = dataclasses.replace(FACTS, end_of_text=299)
    assert space.spec({}, facts, 0).architecture.end_of_text == 299
    with pytest.raises(SpaceError, match="unknown entry of model: end_of_text"):
        load(tmp_path, "end_of_text: 5")


def test_facts_read_the_end_of_text_from_the_tokenizer(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("some words to read\n" * 50)
    corpus = prepare(
        DataConfig(files=(str(tmp_path / "*.txt"),)),
        TokenizerConfig(vocab_size=260),
        tmp_path / "cache",
    )
    facts = DataFacts.of(corpus)
    assert corpus.train[-1] == facts.end_of_text == 0
    assert (corpus.train == 0).sum() == len(corpus.train_documents)
