"""Examples as sequences: equal to the definition, packed without loss, counted and prepared."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.corpus import shards
from model.corpus.dataset import IGNORED
from model.corpus.examples import ExampleDataset, num_known
from model.corpus.packing import packed
from model.corpus.prepare import cached, prepare
from model.corpus.summary import CorpusSummary, first_examples
from model.errors import CorpusError
from model.spec.architecture import Architecture
from model.spec.chat import ChatFormat
from model.spec.data import DataConfig, TokenizerConfig
from model.tokenizer.bpe import train_bpe
from model.tokenizer.tokenizer import Tokenizer
from tests.model.sources.templates import CHATML

PADDING = 0
Example = tuple[list[int], list[int]]  # ids, and 1 for each token of an answer


def shape_of(length: int) -> Architecture:
    return Architecture(vocab_size=60, context_length=length)


def dataset(examples: list[Example], **options: Any) -> ExampleDataset:
    ids = np.array([i for example, _ in examples for i in example], np.uint16)
    marks = np.array([m for _, answers in examples for m in answers], np.uint8)
    ends = np.cumsum([len(example) for example, _ in examples], dtype=np.int64)
    return ExampleDataset(ids, ends, marks, PADDING, **options)


def learned(example: Example, length: int, learns_all: bool) -> list[tuple[int, int]]:
    """Places of inputs whose next token is learned, and that token, as the definition reads."""
    ids, marks = example
    return [
        (place, ids[place + 1])
        for place in range(min(len(ids) - 1, length))
        if learns_all or marks[place + 1]
    ]


EXAMPLES = st.lists(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 1)), max_size=12).map(
        lambda pairs: ([i for i, _ in pairs], [m for _, m in pairs])
    ),
    min_size=1, max_size=9,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=150)
@given(EXAMPLES, st.integers(1, 14), st.booleans(), st.booleans())
def test_sequences_hold_the_examples(
    examples: list[Example], length: int, learns_all: bool, is_packed: bool
) -> None:
    """Each that has something to learn once; begins and targets lead back to it."""
    data, a = dataset(examples, learns_all=learns_all, is_packed=is_packed), shape_of(length)
    numbers = np.arange(data.num_sequences(a))
    batch = data.batch(numbers, a)
    assert batch.inputs.shape == batch.targets.shape == (len(numbers), length)
    assert np.array_equal(data.num_targets(numbers, a), (batch.targets != IGNORED).sum(-1))
    assert (data.num_targets(numbers, a) > 0).all()
    expected = [example for example in examples if learned(example, length, learns_all)]
    found = []
    for row in range(len(numbers)):
        begins = batch.begins[row] if batch.begins is not None else np.zeros(length, np.int64)
        assert (begins <= np.arange(length)).all()
        for begin in np.unique(begins):
            (places,) = np.nonzero(begins == begin)
            assert np.array_equal(places, begin + np.arange(len(places)))
            inputs, targets = batch.inputs[row, places], batch.targets[row, places]
            there = [(int(p), int(targets[p])) for p in np.flatnonzero(targets != IGNORED)]
            if there:
                found.append((inputs.tolist(), there))
            else:
                assert (inputs == PADDING).all()
    wanted = [(e[0][:-1][:length], learned(e, length, learns_all)) for e in expected]
    if not is_packed:
        wanted = [([*ids, *[PADDING] * (length - len(ids))], there) for ids, there in wanted]
    assert sorted(found) == sorted(wanted)
    sizes = data.sizes(length)
    assert sizes.sequences == len(numbers)
    assert (sizes.examples, sizes.dropped) == (len(expected), len(examples) - len(expected))
    assert sizes.learned == sum(len(there) for _, there in wanted)
    assert sizes.cut == sum(len(ids) > length + 1 for ids, _ in expected)
    assert sizes.tokens + sizes.cut_tokens == len(data.tokens)


def test_batch_has_any_shape_and_travels_between_processes() -> None:
    data, a = dataset([([1, 2, 3], [0, 0, 1])] * 5, is_packed=False), shape_of(4)
    batch = pickle.loads(pickle.dumps(data)).batch(np.zeros((2, 0, 3), np.int64), a)
    assert batch.inputs.shape == (2, 0, 3, 4)
    assert (
        data.batch(np.array([[1], [2]]), a).targets.tolist()
        == [[[IGNORED, 3, IGNORED, IGNORED]]] * 2
    )
    assert batch.begins is None


@settings(max_examples=100)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_packing_is_best_fit_decreasing(sizes: list[int]) -> None:
    layout = packed(np.arange(len(sizes)), np.array(sizes), 30)
    rows = np.split(np.array(sizes)[layout.examples], layout.bounds[1:-1])
    assert sorted(layout.examples.tolist()) == list(range(len(sizes)))
    expected: list[list[int]] = []
    for size in sorted(sizes, reverse=True):
        with_room = [row for row in expected if sum(row) + size <= 30]
        if with_room:
            max(with_room, key=sum).append(size)
        else:
            expected.append([size])
    assert sorted(int(row.sum()) for row in rows) == sorted(map(sum, expected))


def test_known_examples_are_counted() -> None:
    train = dataset([([1, 2, 3], [0, 0, 1]), ([4, 5, 6, 7], [0, 1, 1, 0])])
    held_out = dataset([([1, 2, 3], [0, 0, 1]), ([1, 2, 9], [0, 0, 1]), ([4, 9], [0, 1]),
                        ([1, 3], [0, 1]), ([4, 5, 6, 7], [0, 1, 1, 0])])  # fmt: skip
    assert num_known(train, held_out) == (2, 4)


# prepared ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TokenizerConfig:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "a.txt").write_text("what is one and one? user assistant system You are helpful " * 9)
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trained = train_bpe(folder / "a.txt", 300, marks)
    Tokenizer(*trained, marks).save(folder, "huggingface")
    return TokenizerConfig(file=str(folder))


RAISES = "{{ raise_exception('no') }}"
CHAT = ChatFormat(template=CHATML, end="<|im_end|>")


def written(folder: Path, rows: list[Any], **options: Any) -> DataConfig:
    path = folder / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    options = {"chat": CHAT, "validation_fraction": 0.3, **options}
    return DataConfig(files=(str(path),), examples=True, **options)


def chat(question: str, answer: str) -> dict[str, Any]:
    roles = zip(("user", "assistant"), (question, answer), strict=True)
    return {"messages": [{"role": role, "content": content} for role, content in roles]}


def test_examples_are_prepared(
    tmp_path: Path, tokenizer: TokenizerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In many shards as in one, loaded again, with the answers of each example."""
    rows = [chat(f"what is {i}?", str(i) * (1 + i % 4)) for i in range(40)] + [
        chat("what is 1?", "11"), {"prompt": "one", "completion": " two"},
    ]  # fmt: skip
    data = written(tmp_path, rows)
    corpus = prepare(data, tokenizer, tmp_path / "cache")
    train, validation = corpus.examples("train"), corpus.examples("validation")
    assert len(train) + len(validation) == len(rows)
    decode, found = corpus.tokenizer.decode, {}
    for part in (train, validation):
        for number in range(len(part)):
            ids, marks = part.example(number)
            found[decode(ids.tolist())] = decode(ids[marks > 0].tolist())
    system = "<|im_start|>system\nYou are helpful.<|im_end|>\n"
    text = (
        system + "<|im_start|>user\nwhat is 7?<|im_end|>\n<|im_start|>assistant\n7777<|im_end|>\n"
    )
    assert found[text] == "7777<|im_end|>"
    assert found["one two<|im_end|>"] == " two<|im_end|>"
    assert corpus.num_known == num_known(train, validation)
    summary = CorpusSummary.of(corpus, [64]).as_json
    assert summary["layouts"][64]["train"] == train.sizes(64)
    assert summary["train"].answer_tokens == train.answers.sum()
    assert corpus.num_sequences("train", 64) == train.sizes(64).sequences
    sample = first_examples(corpus, 0, 1, 64)
    assert {s.text for s in sample} <= found.keys()
    assert all(len(s.ids) == len(s.learned) for s in sample)

    monkeypatch.setattr(shards, "_SHARD_CHARACTERS", 100)
    again = prepare(data, tokenizer, tmp_path / "other")
    for one, other in zip(corpus.answers or (), again.answers or (), strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(corpus.train, again.train)
    assert cached(data, tokenizer, tmp_path / "cache") is not None
    # what is learned of them changes no file, but the template does
    every = cached(data.model_copy(update={"loss_on": "all"}), tokenizer, tmp_path / "cache")
    assert every is not None
    assert every.examples("train").sizes(64).learned == len(train.tokens) - len(train)
    other = data.model_copy(update={"chat": ChatFormat(template=CHATML + "x", end="<|im_end|>")})
    assert cached(other, tokenizer, tmp_path / "cache") is None
    (tmp_path / "cache" / _folder_of(tmp_path) / "train.answers.npy").write_bytes(b"damaged")
    assert cached(data, tokenizer, tmp_path / "cache") is None


def _folder_of(tmp_path: Path) -> str:
    (name,) = (p.name for p in (tmp_path / "cache").iterdir() if (p / "train.npy").exists())
    return name


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([chat("a", "b")], {}, "the split is by example, and there is only one; give several exam"),
        ([{"prompt": "a", "completion": "b"}, chat("a", "b")], {"chat": None},
         "a.jsonl line 2 has messages, and the model has no chat template"),
        ([chat("a", "b")] * 9, {"chat": ChatFormat(template=RAISES, end="x")},
         "a.jsonl line 1: the chat template refuses it: no"),
    ],
)  # fmt: skip
def test_examples_that_cannot_be_prepared(
    rows: list[Any],
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    tokenizer: TokenizerConfig,
) -> None:
    with pytest.raises(CorpusError, match=message):
        prepare(written(tmp_path, rows, **options), tokenizer, tmp_path / "cache")


def test_examples_need_a_given_tokenizer(tmp_path: Path) -> None:
    data = written(tmp_path, [chat("a", "b")])
    with pytest.raises(CorpusError, match="a tokenizer that is trained lacks the marks of chats"):
        prepare(data, TokenizerConfig(), tmp_path / "cache")
