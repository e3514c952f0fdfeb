"""The memory of preparing a corpus, tokenizer included, does not grow with its texts."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CODE = """
import re, sys
from pathlib import Path
from model.corpus.prepare import prepare
from model.spec.data import DataConfig, TokenizerConfig
def peak():  # ru_maxrss begins with the memory of the parent
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
before = peak()
data = DataConfig(files=(sys.argv[1],))
prepare(data, TokenizerConfig(vocab_size=512), Path(sys.argv[2]), processes=1)
print(peak() - before)
"""


def write_texts(path: Path, megabytes: int) -> None:
    """Documents of 100 kB over a few thousand words."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghij", k=6)) for _ in range(5000)]
    with path.open("w") as file:
        for _ in range(10 * megabytes):
            file.write(json.dumps({"text": " ".join(draw.choices(words, k=14_000))}) + "\n")


@pytest.mark.slow
def test_memory_of_preparation_does_not_grow_with_the_texts(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    write_texts(texts, megabytes=24)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(texts), str(tmp_path / "corpora")],
        capture_output=True, text=True, timeout=120, check=True, cwd=ROOT,
    )  # fmt: skip
    assert 0 < float(done.stdout) < 100  # a list of its pre-tokens would take several hundred
