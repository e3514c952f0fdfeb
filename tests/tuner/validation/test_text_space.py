from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from model.sources.survey import Survey
from model.spec.data import DataConfig
from tuner.errors import TunerError
from tuner.space_file.load import read_space
from tuner.validation.text_space import TextSpace, text_space

DATA = DataConfig(files=("texts/*.jsonl",), field="body")
WORDS = "the quick brown fox jumps over a lazy dog and into the old dark wood by night".split()
SAMPLE = " ".join(random.Random(0).choices(WORDS, k=4_000))


def seen(size: int, sample: str = SAMPLE) -> Survey:
    return Survey(1, 100, 0, 1_000, size, size, True, {"Latin": 1.0}, sample)


def made(size: int, cores: int = 2, **options: bool) -> TextSpace:
    return text_space("mine", DATA, seen(size), cores, **options)


@pytest.mark.parametrize("size", [2_000, 40_000, 3_000_000, 10**9])
def test_space_of_a_text_is_valid_and_fits(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.jsonl").write_text(json.dumps({"body": SAMPLE}))
    space = made(size)
    read, _ = read_space("mine.yaml", text=space.text("some text"))
    assert (read.data.files, read.data.field) == ((str(tmp_path / "texts/*.jsonl"),), "body")
    assert read.budget.tokens == space.tokens
    assert read.tokenizer.vocab_size == space.vocab_size
    held_out = 0.05 * space.text_tokens
    assert (
        space.architecture.context_length == 16 or held_out >= 4 * space.architecture.context_length
    )
    assert space.passes < 4.1 or space.tokens < 50_000
    assert ("dropout" in read.hyperparameters) == (space.passes > 2)


def test_more_cores_or_more_text_give_larger_models() -> None:
    sizes = [made(10**9, cores).architecture.num_parameters for cores in (2, 32, 1_000)]
    assert sizes == sorted(set(sizes))
    on_gpu = [
        made(size, has_gpu=True).architecture.num_parameters for size in (10**6, 10**8, 10**10)
    ]
    assert on_gpu == sorted(set(on_gpu))


def test_time_of_the_search_is_bounded_on_a_cpu_and_unknown_on_a_gpu() -> None:
    for cores in (1, 2, 16):
        seconds = made(10**9, cores).seconds
        assert seconds is not None
        assert 300 < seconds < 700
    assert made(10**9, has_gpu=True).seconds is None


def test_alphabet_of_many_characters_has_a_larger_vocabulary() -> None:
    letters = "".join(chr(0x4E00 + n) for n in range(1_500))
    chinese = text_space("mine", DATA, seen(300_000, letters * 2), 2)
    assert chinese.vocab_size == 2 * made(300_000).vocab_size


def test_size_that_is_unknown_is_that_of_what_was_read() -> None:
    survey = replace(seen(3_000_000), total_bytes=None, is_complete=False)
    assert text_space("mine", DATA, survey, 2) == made(3_000_000)


def test_text_that_is_too_short_is_refused() -> None:
    with pytest.raises(TunerError, match="the text has 1,999 bytes, and a search needs 2,000"):
        made(1_999)
