"""Questions with several answers: read, encoded, and scored as lm-evaluation-harness does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.errors import CorpusError
from model.sources.choices import ChoiceSet, read_choices
from model.tokenizer.bpe import train_bpe
from model.tokenizer.tokenizer import Tokenizer

IGNORED = -100
TEXT = "The capital of France is Paris. Lyon is large. Answer: yes or no? " * 30


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_text(TEXT)
    return Tokenizer(*train_bpe(path, 320, ["<|endoftext|>"]), ["<|endoftext|>"])


def written(folder: Path, *rows: Any) -> str:
    path = folder / "choices.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n\n")
    return str(path)


QUESTIONS = [
    {"prompt": "The capital of France is", "choices": ["Lyon", "Paris"], "answer": 1},
    {"prompt": "Answer: ", "choices": ["yes", "no", "or no?"], "answer": 0},
    {"prompt": "", "choices": ["large.", "Paris"], "answer": 0},
]


def test_choices_are_encoded_with_their_prompts(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """As one text; white space at the end of a prompt belongs to the choice."""
    found = read_choices(written(tmp_path, *QUESTIONS), tokenizer)
    texts = [
        tokenizer.decode(found.tokens[begin:end].tolist())
        for begin, end in zip(found.bounds, found.bounds[1:], strict=False)
    ]
    end = "<|endoftext|>"
    assert texts == [
        "The capital of France is Lyon", "The capital of France is Paris", "Answer:  yes",
        "Answer:  no", "Answer:  or no?", f"{end} large.", f"{end} Paris",
    ]  # fmt: skip
    chosen = [
        tokenizer.decode(found.tokens[end - length : end].tolist())
        for end, length in zip(found.bounds[1:], found.lengths, strict=True)
    ]
    assert chosen == [" Lyon", " Paris", "  yes", "  no", "  or no?", " large.", " Paris"]
    assert found.characters.tolist() == [4, 5, 3, 2, 6, 6, 5]
    assert found.questions.tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert found.answers.tolist() == [1, 2, 5]
    found.save(tmp_path / "a.npz")
    again = ChoiceSet.load(tmp_path / "a.npz")
    assert all(
        np.array_equal(a, b)
        for a, b in zip(vars(found).values(), vars(again).values(), strict=True)
    )


def test_rows_keep_the_end_of_long_prompts(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found = read_choices(written(tmp_path, *QUESTIONS), tokenizer)
    for length in (found.longest, 64):
        inputs, targets = found.rows(length, 7, IGNORED)
        assert inputs.shape == targets.shape
        assert inputs.shape[1] <= length
        for row in range(len(inputs)):
            ids = found.tokens[found.bounds[row] : found.bounds[row + 1]]
            size = min(len(ids) - 1, length)
            assert inputs[row, :size].tolist() == ids[:-1][-size:].tolist()
            assert (inputs[row, size:] == 7).all()
            (places,) = np.nonzero(targets[row] != IGNORED)
            assert places.tolist() == list(range(size - found.lengths[row], size))
            assert targets[row, places].tolist() == ids[-found.lengths[row] :].tolist()


def test_shares_are_those_of_the_definition(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """acc by the sum; acc_norm by the sum for each character; of equal ones the first."""
    found = read_choices(written(tmp_path, *QUESTIONS), tokenizer)
    sums = np.array([-4.0, -4.5, -3.0, -2.5, -2.9, -1.0, -1.0])
    # for each character: -1, -0.9; -1, -1.25, -0.48; -0.17, -0.2
    assert found.shares(sums) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert found.shares(np.full(7, np.nan)) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found.shares(np.array([-2.0, -1, -1, -2, -2, -1, -2])) == (1.0, 1.0)


REFUSED = {
    "no JSON": ("{", "is not JSON"),
    "no prompt": ({"choices": ["a", "b"], "answer": 0}, "has no text in prompt"),
    "one choice": ({"prompt": "a", "choices": ["b"], "answer": 0}, "is not a list of two or more"),
    "empty choice": ({"prompt": "a", "choices": ["b", ""], "answer": 0}, "a list of two or more"),
    "answer": ({"prompt": "a", "choices": ["b", "c"], "answer": 2}, "from 0 to 1"),
    "letter": ({"prompt": "a", "choices": ["b", "c"], "answer": "b"}, "answer is not the number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_question_is_refused_with_its_line(name: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    row, message = REFUSED[name]
    with pytest.raises(CorpusError) as caught:
        read_choices(written(tmp_path, QUESTIONS[0], row), tokenizer)
    assert f"data.multiple_choice: {tmp_path / 'choices.jsonl'} line 2" in str(caught.value)
    assert message in str(caught.value)


def test_file_without_questions_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(CorpusError, match="has no questions"):
        read_choices(written(tmp_path), tokenizer)
    with pytest.raises(CorpusError, match=r"no\.jsonl"):
        read_choices(str(tmp_path / "no.jsonl"), tokenizer)
