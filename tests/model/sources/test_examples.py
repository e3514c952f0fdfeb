"""Rows of examples: the forms that are read, and those that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.errors import CorpusError
from model.sources.fingerprint import fingerprint
from model.sources.registry import check_tables, documents
from model.spec.chat import ChatFormat
from model.spec.data import DataConfig

USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
SYSTEM, TOOL = {"role": "system", "content": "s"}, {"role": "tool", "content": "t"}


def written(folder: Path, *rows: Any) -> DataConfig:
    path = folder / "a.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return DataConfig(files=(str(path),), examples=True)


READ = [
    {"messages": [SYSTEM, USER, ANSWER, USER, ANSWER]},
    {"messages": [USER, {**ANSWER, "name": None}, TOOL, ANSWER], "id": 3, "tools": []},
    {"prompt": "a", "completion": "b", "text": "x"},
    {"prompt": [USER], "completion": [ANSWER]},
    {"instruction": "a", "input": "", "output": "b", "messages": None},
]


def test_forms_are_read(tmp_path: Path) -> None:
    """Each row is one document; keys of no form and null are left out."""
    found = list(documents(written(tmp_path, *READ)))
    assert [document.name for document in found] == [f"a.jsonl#{i}" for i in range(5)]
    assert all(document.ends for document in found)
    rows = [json.loads(document.text) for document in found]
    assert rows[0] == READ[0]
    assert rows[1] == {"messages": [USER, ANSWER, TOOL, ANSWER], "tools": []}
    assert rows[2] == {"prompt": "a", "completion": "b"}
    assert rows[3] == {"messages": [USER, ANSWER], "learned": 1}
    assert rows[4] == {"instruction": "a", "input": "", "output": "b"}


REFUSED = {
    "mixed forms": ({"messages": [USER, ANSWER], "completion": "b", "prompt": "a"},
                    "has messages and completion, and an example is in one form"),
    "no form": ({"text": "a"}, "has the fields 'text', and an example is in one form"),
    "no answer": ({"messages": [USER]}, "has no answer of the assistant"),
    "empty answer": ({"messages": [USER, {**ANSWER, "content": " "}]}, "has no answer of the"),
    "empty completion": ({"prompt": "a", "completion": " "}, "has no answer: completion is empty"),
    "no prompt": ({"completion": "b"}, "has no prompt; add one"),
    "answer in the prompt": ({"prompt": [USER, ANSWER], "completion": [USER]}, "has no answer"),
    "half messages": ({"prompt": "a", "completion": [ANSWER]}, "a prompt that is a text"),
    "no text": ({"instruction": "a", "output": 3}, "output is not a text but int"),
    "no list": ({"messages": "a"}, "messages is not a list of objects"),
    "role": ({"messages": [{"role": "bot", "content": "a"}]}, "message 1 has the role 'bot'"),
    "content": ({"messages": [{"role": "user"}]}, "message 1 has no content that is a text"),
    "two users": ({"messages": [USER, USER, ANSWER]},
                  "roles are out of order: message 2 is of the user and comes after user"),
    "two answers": ({"messages": [USER, ANSWER, ANSWER]}, "message 3 is of the assistant"),
    "late system": ({"messages": [USER, SYSTEM, ANSWER]}, "message 2 is of the system and comes"),
    "half a character": ('{"prompt": "\\ud800", "completion": "b"}', "half a character"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_row_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    row, message = REFUSED[name]
    config = written(tmp_path, READ[0], row)
    with pytest.raises(CorpusError) as caught:
        list(documents(config))
    assert f"data: {tmp_path / 'a.jsonl'} line 2" in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_first_row_is_checked_early(tmp_path: Path) -> None:
    check_tables(written(tmp_path, READ[0], {"text": "a"}))
    with pytest.raises(CorpusError, match="line 1 has the fields 'text'"):
        check_tables(written(tmp_path, {"text": "a"}))


def test_template_is_tried_early(tmp_path: Path) -> None:
    config = written(tmp_path, READ[0])
    chat = ChatFormat(template="{{ raise_exception('no') }}", end="x")
    with pytest.raises(CorpusError, match="line 1: the chat template refuses it: no"):
        check_tables(config.model_copy(update={"chat": chat}))


def test_only_jsonl_has_examples(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,completion\na,b\n")
    with pytest.raises(CorpusError, match=r"a\.csv is no \.jsonl file, and only these have exam"):
        list(documents(DataConfig(files=(str(tmp_path / "a.csv"),), examples=True)))


def test_examples_are_other_data_than_texts(tmp_path: Path) -> None:
    examples = written(tmp_path, *READ)
    text = DataConfig(files=examples.files, field="prompt")
    learned = examples.model_copy(update={"loss_on": "all", "packing": False})
    digests = [fingerprint(config).digest for config in (examples, text, learned)]
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": ("a.jsonl",), "loss_on": "all"}, "loss_on has no effect with files"),
        ({"files": ("a.jsonl",), "packing": False}, "packing has no effect with files"),
        ({"hub": "a/b", "examples": True}, "examples are rows of .jsonl files"),
        ({"files": ("a",), "pairs": True, "examples": True}, "examples are rows of .jsonl files"),
        ({"files": ("a",), "examples": True, "field": "x"}, "field has no effect with files with"),
        ({"files": ("a",), "examples": True, "split_by": "position"}, "examples are split by"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**options)


def test_defaults_are_left_out_of_specifications() -> None:
    """Hashes of older specifications have no entry for them."""
    entries = {"examples", "loss_on", "packing", "chat"}
    assert not entries & DataConfig(files=("a",)).model_dump(mode="json").keys()
    data = DataConfig(files=("a",), examples=True, loss_on="all", packing=False)
    assert entries - {"chat"} <= data.model_dump(mode="json").keys()
    assert DataConfig.model_validate_json(data.model_dump_json()) == data
