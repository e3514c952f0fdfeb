from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from model.errors import CorpusError
from model.sources import survey as module
from model.sources.survey import survey, text_field
from model.spec.data import DataConfig


def test_survey_counts_documents_scripts_and_duplicates(tmp_path: Path) -> None:
    texts = ["abcd", "абвг", "漢字かなカナ", "abcd", "", "1234 ,.!"]
    rows = (json.dumps({"text": text}) for text in texts)
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    seen = survey(DataConfig(files=(str(tmp_path),)))
    assert (seen.files, seen.documents, seen.duplicates) == (1, 5, 1)  # an empty row is none
    assert seen.text_bytes == seen.total_bytes == sum(len(text.encode()) for text in texts)
    assert seen.median == 4
    assert seen.is_complete
    assert seen.scripts == {
        "Latin": 8 / 18, "Cyrillic": 4 / 18, "Japanese kana": 4 / 18, "Chinese characters": 2 / 18,
    }  # fmt: skip
    assert "абвг" in seen.sample


def test_survey_ends_after_some_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_CHARACTERS", 10)
    path = tmp_path / "a.txt"
    path.write_text("<|endoftext|>".join(f"text {n}" for n in range(9)))
    seen = survey(DataConfig(files=(str(path),)))
    assert (seen.documents, seen.is_complete) == (2, False)
    assert seen.total_bytes == path.stat().st_size


def test_survey_names_data_without_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(CorpusError, match=r"a.txt is empty: there are no documents"):
        survey(DataConfig(files=(str(tmp_path / "a.txt"),)))


def test_field_of_a_table_is_text_or_the_only_one(tmp_path: Path) -> None:
    files = {
        "a.jsonl": '{"id": 1, "body": "x"}\n',
        "b.jsonl": '{"text": "x", "title": "y"}\n',
        "c.csv": "text,label\nx,1\n",
        "d.tsv": "body\nx\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    kinds = {"n": pa.array([1]), "words": pa.array(["x"], pa.large_string())}
    parquet.write_table(pa.table(kinds), tmp_path / "e.parquet")
    names = [*files, "e.parquet", "f.txt", "g.parquet.gz"]
    assert [text_field(tmp_path / name) for name in names] == [
        "body", "text", "text", "body", "words", None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a": "x", "b": "y"}', "a row has the fields a, b, and one is needed"),
        ("a.jsonl", '{"a": 1}', "a row has no field of text, and one is needed"),
        ("a.jsonl", "[1]", "no field of text"),
        ("a.jsonl", "x", "the first row is no JSON"),
        ("a.csv", "a,b\n", "the fields a, b"),
        ("a.csv", "", "no field of text"),
        ("a.parquet", "x", "is not a Parquet file or is damaged"),
    ],
)
def test_table_without_one_field_of_text_is_named(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(CorpusError, match=message):
        text_field(tmp_path / name)
