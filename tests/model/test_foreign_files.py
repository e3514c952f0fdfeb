"""Mutated files of strangers: every reader refuses them in one sentence, or reads them.

`make fuzz` runs more mutations. One that fails is kept in the folder TUNER_FUZZ_KEEP, if it is set.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from model.corpus.corpus import Corpus, load, sha256_of
from model.corpus.prepare import prepare
from model.errors import CorpusError
from model.sources.hub import local_files
from model.sources.registry import documents
from model.spec.data import DataConfig, TokenizerConfig
from model.tokenizer.bpe import train_bpe
from model.tokenizer.load import load_tokenizer
from model.tokenizer.tokenizer import Tokenizer
from tests.model.sources.compress import COMPRESS
from tests.mutations import check_reading, mutated_bytes, mutated_json

TEXTS = ["one row", "é and 💥\nand a line", "", "x" * 300, '\u2028 {"a": [1]}', "last, 'row'"]
SPECIAL = "<|endoftext|>"
pytestmark = pytest.mark.slow


def jsonl() -> bytes:
    rows = [{"text": text, "n": [1, {"a": None}]} for text in TEXTS]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table() -> bytes:
    file = io.StringIO()
    csv.writer(file).writerows([["n", "text"], *enumerate(TEXTS)])
    return file.getvalue().encode()


def columns(**options: Any) -> bytes:
    sink = io.BytesIO()
    rows = pyarrow.table({"text": [*TEXTS, None] * 3, "n": list(range(21))})
    parquet.write_table(rows, sink, row_group_size=8, **options)
    return sink.getvalue()


DATA: dict[str, list[bytes]] = {
    "a.txt": [SPECIAL.join(TEXTS).encode()],
    "a.jsonl": [jsonl()],
    "a.csv": [table()],
    "a.tsv": [table().replace(b",", b"\t")],
    "a.parquet": [
        columns(), columns(use_dictionary=False), columns(compression="zstd"),
        columns(data_page_version="2.0", compression="gzip"),
        columns(use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"}),
        columns(use_dictionary=False, column_encoding={"text": "DELTA_LENGTH_BYTE_ARRAY"}),
    ],
    "a.txt.gz": [COMPRESS[".gz"](SPECIAL.join(TEXTS).encode() * 9)],
    "a.jsonl.zst": [COMPRESS[".zst"](jsonl() * 9)],
    "a.parquet.gz": [COMPRESS[".gz"](columns())],
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def read(path: Path, **options: Any) -> None:
        for document in documents(DataConfig(files=(str(path),), **options)):
            document.text.encode()

    (tmp_path / name).write_bytes(DATA[name][0])
    read(tmp_path / name)  # imports
    refused = check_reading(
        lambda n: mutated_bytes(DATA[name], n), read, tmp_path, name, (CorpusError,)
    )
    assert refused


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    text = tmp_path_factory.mktemp("text") / "a.txt"
    text.write_text("the cat and the hat and the bat " * 20)
    return Tokenizer(*train_bpe(text, 280, [SPECIAL]), [SPECIAL])


@pytest.mark.parametrize("kind", ["huggingface", "gpt2", "tiktoken"])
def test_tokenizers(tmp_path: Path, tokenizer: Tokenizer, kind: str) -> None:
    special = [] if kind == "tiktoken" else [SPECIAL]
    files = Tokenizer(tokenizer.vocab, tokenizer.merges, special).save(tmp_path, kind)
    folder = kind == "gpt2"

    def read(path: Path) -> None:
        loaded = load_tokenizer(TokenizerConfig(file=str(path.parent if folder else path)))
        assert loaded is not None
        assert loaded.vocab_size >= 0
        loaded.decode(loaded.encode("the cat"))
        assert loaded.fingerprint

    for file in files:
        seed = file.read_bytes()
        mutations = [partial(mutated_bytes, [seed])]
        if file.suffix == ".json":
            mutations.append(partial(mutated_json, [json.loads(seed)]))
        for each in mutations:
            check_reading(each, read, tmp_path, file.name, (CorpusError,))
        file.write_bytes(seed)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a prepared corpus."""
    root = tmp_path_factory.mktemp("corpus")
    (root / "a.txt").write_text(SPECIAL.join(f"text number {i}, and more" for i in range(40)))
    prepare(
        DataConfig(files=(str(root / "a.txt"),)), TokenizerConfig(vocab_size=260), root / "cache"
    )
    (folder,) = (path.parent for path in (root / "cache").glob("*/meta.json"))
    return folder


@pytest.mark.parametrize(
    "name", ["meta.json", "files.json", "tokenizer.json", "train.npy", "train.documents.npy"]
)
def test_prepared_corpora(corpus: Path, tmp_path: Path, name: str) -> None:
    """A corpus that is damaged counts as missing, also if its checksums were corrected."""
    corpus = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    data, config = DataConfig(files=("a.txt",)), TokenizerConfig(vocab_size=260)
    seeds = {file: (corpus / file).read_bytes() for file in (name, "meta.json")}

    def read(path: Path) -> None:
        if name != "meta.json":
            meta = json.loads(seeds["meta.json"])
            meta["sha256"][name] = sha256_of(path)
            (corpus / "meta.json").write_text(json.dumps(meta))
        loaded = load(corpus, data, config)
        if loaded is not None:
            use(loaded)

    mutations = [lambda n: mutated_bytes([seeds[name]], n)]
    if name.endswith(".json"):
        mutations.append(lambda n: mutated_json([json.loads(seeds[name])], n))
    for mutate in mutations:
        check_reading(mutate, read, corpus, name, (CorpusError,))


def use(corpus: Corpus) -> None:
    for part in ("train", "validation"):
        tokens, ends, num_bytes = corpus.split(part)
        assert tokens.ndim == ends.ndim == 1
        assert len(tokens)
        assert int(np.max(tokens)) < corpus.vocab_size
        assert ends[-1] <= len(tokens)
        assert num_bytes >= 0
    assert 0 <= corpus.validation_share <= 1
    assert corpus.end_of_text >= 0
    assert sum(file.bytes for file in corpus.files) >= 0
    assert isinstance(corpus.data_fingerprint, str)
    corpus.num_sequences("train", 4)


def test_heads_of_data_sets(tmp_path: Path) -> None:
    configs = [{"config_name": "default", "data_files": [{"split": "train", "path": "a*.jsonl"}]}]
    seeds = [{"configs": configs, "dataset_info": {"features": [{"name": "text"}]}}]
    root = tmp_path / "set"
    root.mkdir()
    (root / "a.jsonl").write_bytes(jsonl())

    def read(path: Path) -> None:
        local_files(DataConfig(hub=str(path.parent)))

    def head(number: int) -> bytes:
        return b"---\n" + mutated_json(seeds, number) + b"\n---\n# A set\n"

    check_reading(head, read, root, "README.md", (CorpusError,))
    check_reading(
        lambda n: mutated_bytes([head(0), head(1)], n), read, root, "README.md", (CorpusError,)
    )
