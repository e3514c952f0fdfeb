"""`proxy:` in a file: what it makes of a model, and its mistakes. `▲` marks their places."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.spec.architecture import Architecture
from model.spec.target import SIZES_OF_TARGET, Target
from tests.shipped import load_shipped
from tests.tuner.space_file.test_load import mistakes_of, split_marks
from tuner.space.data_facts import DataFacts
from tuner.space.settings import Proxy
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space
from tuner.space_file.overrides import Override
from tuner.validation.sentences import search_lines

FACTS = DataFacts(2048, 1_000_000, 100_000, "data", "tokenizer")
HEAD = "budget: {tokens: 160000}\nmodel: {d_model: 512, n_layers: 8, n_heads: 32}\n"
GIVEN = HEAD + "proxy: {width: 1/8, depth: 1/4, tokens: 1/16}\n"
MISTAKES = {
    "key": (HEAD + "proxy: {▲widht: 1/8}", "did you mean width?"),
    "no share": (HEAD + "proxy: {width: ▲an eighth}", "must be a number or a quotient such as 1/8"),
    "no quotient": (HEAD + "proxy: {width: ▲1/0}", "such as 1/8, got 1/0"),
    "too large": (HEAD + "proxy: {width: ▲2}", "proxy.width must be at most 1, got 2"),
    "nothing": (HEAD + "proxy: {depth: ▲0}", "proxy.depth must be above 0, got 0"),
    "rule": (HEAD + "proxy: {tokens: 1/2, tokens_rule: ▲bjork}", "did you mean bjorck?"),
    "rule without share": (HEAD + "proxy: ▲{batch_rule: sqrt}", "no effect without proxy.batch"),
    "two rules for α": (
        HEAD + "proxy: ▲{tokens: 1/2, tokens_rule: bjorck, batch: 1/2}",
        "holds at a fixed batch size and contradicts proxy.batch; leave out one of them",
    ),
    "two rules for λ": (
        HEAD + "proxy: ▲{tokens: 1/2, tokens_rule: timescale, decay_exponent: 2}",
        "contradicts a proxy.decay_exponent other than 1; leave out one of them",
    ),
    "width": (HEAD + "proxy: ▲{width: 1/3}", "proxy.width 1/3 does not divide d_model 512"),
    "depth": (HEAD + "proxy: ▲{depth: 1/3}", "proxy.depth 1/3 does not divide n_layers 8"),
    "heads": (
        HEAD + "proxy: ▲{width: 1/64}",
        "the model of 8 layers of 8 is not possible: d_model must be a multiple of n_heads, got 8 "
        "and 32; choose another share",
    ),
    "batch": (
        HEAD + "hyperparameters: {B: ▲{choice: [8, 12]}}\nproxy: {batch: 1/8}",
        "proxy.batch 1/8 does not divide B 12",
    ),
    "rule for another optimizer": (
        HEAD + "hyperparameters: {optimizer: muon}\nproxy: {batch: 1/2, batch_rule: ▲sqrt}",
        "proxy.batch_rule is derived for adamw, and the space has muon",
    ),
    "optimizer": (
        GIVEN + "hyperparameters: {optimizer: ▲{choice: [adamw, lion]}}",
        "optimizer: lion does not transfer from a proxy to its target; with proxy: it must be "
        "adamw or muon",
    ),
    "penalty": (GIVEN + "hyperparameters: {λ₁: ▲{uniform: [0, 0.1]}}", "λ₁: 0.1 does not transfer"),
    "updates": (
        GIVEN + "hyperparameters: {T_warmup: ▲100}",
        "T_warmup: a number of updates of the target is none of its proxy",
    ),
    "budget": (
        "hyperparameters: {T_total: 100}\nproxy: {tokens: ▲1/2}",
        "proxy.tokens is a share of budget.tokens; give the budget in tokens",
    ),
    "start": (GIVEN.replace("proxy:", "▲proxy:") + "init_from: {search: lm}", "random weights"),
    "norms": (
        GIVEN.replace("heads: 32", "heads: 32, norm_placement: post").replace("y: {", "y: ▲{"),
        "post does not transfer over the depth",
    ),
}  # fmt: skip


def load(folder: Path, text: str) -> SearchSpace:
    (folder / "space.yaml").write_text(text, encoding="utf-8")
    return load_space(folder / "space.yaml")


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_located(tmp_path: Path, name: str) -> None:
    text, message = MISTAKES[name]
    text, places = split_marks(text)
    found = mistakes_of(tmp_path / "space.yaml", text)
    assert [(m.line, m.column) for m in found] == places
    assert message in found[0].message


def test_proxy_means_its_target(tmp_path: Path) -> None:
    space = load(tmp_path, GIVEN)
    spec = space.spec(space.defaults(), FACTS, 0)
    a = spec.architecture
    assert (a.d_model, a.n_layers, a.n_heads, a.d_head, a.d_ff) == (64, 2, 4, 16, 160)
    assert a.target == Target(
        d_model=512, n_layers=8, n_heads=32, n_kv_heads=32, d_ff=1344, tokens=1 / 16
    )
    assert spec.hyperparameters.max_learning_rate == 1e-3, "the target's, which the trainer scales"
    assert spec.budget_tokens == 10_240, "10,000 in whole updates"
    assert space.shapes(2048) == [a.model_copy(update={"vocab_size": 2048})]


def test_proxy_of_the_same_size_is_the_target_itself(tmp_path: Path) -> None:
    """Hash and bits are those of a space without `proxy:`."""
    plain, same = (load(tmp_path, HEAD + more) for more in ("", "proxy: {width: 1, depth: 1}"))
    specs = [space.spec(space.defaults(), FACTS, 3) for space in (plain, same)]
    assert specs[0] == specs[1]
    assert specs[0].hash == specs[1].hash


def test_space_with_a_proxy_is_read_and_recorded(tmp_path: Path) -> None:
    given = load(tmp_path, GIVEN)
    assert SearchSpace.model_validate(given.model_dump(mode="json")) == given


# of the first trials, computed by the version before proxies; that of scaling with its rates since
HASHES = {
    "attention": "8be668d88d24d7f5",
    "finetune": "da3e99c2b038a48e",
    "lm": "cc472f6921d8ab10",
    "lm_gpu": "1989d81914e2b41f",
    "optimizers": "2861b3e0185f1552",
    "regularisation": "007e3a4bd26be0b5",
    "schedules": "ef3334fe62414b61",
    "scaling": "8795ad2631e51b5f",
    "seq2seq": "f8a4a48e217e480c",
    "shakespeare": "9ae7cb7a7da6c48c",
}


@pytest.mark.parametrize("name", HASHES)
def test_hashes_of_shipped_spaces_stay(tmp_path: Path, name: str) -> None:
    space = load_shipped(name, tmp_path)
    facts = DataFacts(2048, 1_000_000, 100_000, "data", "tokenizer", has_pairs=space.data.pairs)
    hashed = space.model_copy(update={"init_from": None}).spec(space.defaults(), facts, 0)
    if hashed.data.files:  # absolute paths
        hashed = hashed.model_copy(
            update={"data": hashed.data.model_copy(update={"files": ("f",)})}
        )
    assert hashed.hash[:16] == HASHES[name]


@pytest.mark.parametrize(
    ("sizes", "width", "heads"),
    [
        ({"n_heads": 8}, 1 / 8, (1, 1, 64)),
        ({"n_heads": 8, "n_kv_heads": 2}, 1 / 2, (4, 1, 64)),
        ({"n_heads": 8, "n_kv_heads": 2}, 1 / 4, (8, 2, 16)),  # half a head of keys
        ({"n_heads": 4}, 1 / 8, (4, 4, 16)),
        ({"n_heads": 3, "d_model": 96}, 1 / 3, (1, 1, 32)),
    ],
)
def test_heads_become_fewer_or_narrower(
    sizes: dict[str, int], width: float, heads: tuple[int, int, int]
) -> None:
    target = Architecture(vocab_size=50, **{"d_model": 512, **sizes})
    small = Proxy(width=width).shrink(target)
    assert (small.n_heads, small.n_kv_heads, small.d_head) == heads
    assert small.target is not None
    assert all(getattr(small.target, n) == getattr(target, n) for n in SIZES_OF_TARGET)
    assert small.target_architecture == target


def test_encoder_has_the_same_share_of_its_depth() -> None:
    target = Architecture(vocab_size=50, d_model=64, n_layers=4, n_encoder_layers=8)
    small = Proxy(depth=0.5).shrink(target)
    assert (small.n_layers, small.n_encoder_layers) == (2, 4)


def test_share_of_the_batch(tmp_path: Path) -> None:
    text = HEAD + "hyperparameters: {B: {choice: [16, 32]}}\nproxy: {batch: 1/4, batch_rule: sqrt}"
    space = load(tmp_path, text)
    assert (space.batch_sizes, space.micro_batch) == ([4, 8], 4)
    spec = space.spec({"batch_size": 32}, FACTS, 0)
    assert (spec.hyperparameters.batch_size, spec.value_of("batch_size")) == (8, 32)
    assert spec.trained_hyperparameters.max_learning_rate == 0.5e-3


def test_searched_sizes_have_targets_of_their_own(tmp_path: Path) -> None:
    text = "budget: {tokens: 9000}\nmodel: {d_model: {choice: [64, 128]}}\nproxy: {width: 1/4}"
    space = load(tmp_path, text)
    assert [a.d_model for a in space.shapes(300)] == [16, 32]
    assert [a.d_model for a in space.targets(300)] == [64, 128]
    assert space.spec({"d_model": 128}, FACTS, 0).value_of("d_model") == 128


def test_search_is_described_with_its_target(tmp_path: Path) -> None:
    lines = search_lines(load(tmp_path, GIVEN), FACTS)
    (line,) = [line for line in lines if line.startswith("Proxy")]
    assert line == (
        "Proxy: trials train 1/8 of the width, 1/4 of the depth and 1/16 of the tokens of the "
        "target, 8 layers of 512, 32 heads (27,009,536 weights). All values are those of the "
        "target."
    )
    assert not [each for each in search_lines(load(tmp_path, HEAD), FACTS) if "roxy" in each]


def test_shares_may_be_overridden(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(GIVEN, encoding="utf-8")
    override = Override("--set proxy.width", ("proxy", "width"), "1/4")
    assert load_space(tmp_path / "space.yaml", [override]).proxy == Proxy(
        width=0.25, depth=0.25, tokens=1 / 16
    )
