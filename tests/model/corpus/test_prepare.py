"""Preparation of a corpus: the split, the cache, interruptions, and others at the same work."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.corpus import prepare as preparation
from model.corpus import shards, split, survey
from model.corpus.corpus import Corpus
from model.corpus.prepare import cached, prepare
from model.corpus.split import place
from model.errors import CorpusError
from model.progress import Progress
from model.sources.documents import Document
from model.sources.registry import documents
from model.spec.data import END_OF_TEXT, DataConfig, TokenizerConfig
from model.tokenizer.tokenizer import Tokenizer
from tests.shipped import small_library

SMALL = TokenizerConfig(vocab_size=270)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Twelve small documents in a folder with others that are no text."""
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    for i in range(12):
        name = f"deep/{i}.md" if i % 2 else f"{i}.txt"
        (folder / name).write_text(f"Document {i} é.\n" * (i + 1), encoding="utf-8")
    (folder / "picture.png").write_bytes(b"\xff\x00")
    long_ago = time.time() - 3600
    for path in folder.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    return folder


def config(*files: Path | str, **more: Any) -> DataConfig:
    return DataConfig(files=tuple(map(str, files)), **more)


def decoded(corpus: Corpus, split: str) -> set[str]:
    """The documents of a split, as the token ids say."""
    *found, rest = corpus.tokenizer.decode(getattr(corpus, split).tolist()).split(END_OF_TEXT)
    assert rest == ""
    assert len(found) == len(getattr(corpus, f"{split}_documents"))
    return set(found)


def prepared(cache: Path) -> list[Path]:
    """The corpora in a cache, and nothing that is half-written."""
    assert not [path for path in cache.iterdir() if "building" in path.name]
    return sorted(path for path in cache.iterdir() if path.is_dir())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_prepare_covers_every_document_once(texts: Path, tmp_path: Path) -> None:
    data = config(texts, validation_fraction=0.4)
    said: list[Progress] = []
    corpus = prepare(data, SMALL, tmp_path / "cache", on_progress=said.append)
    train, validation = decoded(corpus, "train"), decoded(corpus, "validation")
    assert train | validation == {document.text for document in documents(data)}
    assert not train & validation
    assert corpus.train_bytes == sum(len(text.encode()) for text in train)
    assert corpus.validation_bytes == sum(len(text.encode()) for text in validation)
    assert corpus.tokenizer.vocab_size == 270
    assert corpus.train.dtype == np.uint16
    stages = list(dict.fromkeys(progress.stage for progress in said))
    assert stages == ["fingerprinting the data", "counting", "encoding", "assembling"]
    size = sum(path.stat().st_size for path in texts.rglob("*.[tm]*"))
    assert [p for p in said if p.stage == "encoding"][-1] == Progress("encoding", size, size, "B")


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "whitespace"])
def test_prepare_encodes_as_the_tokenizer_does(texts: Path, tmp_path: Path, pattern: Any) -> None:
    tokenizer = TokenizerConfig(vocab_size=300, pattern=pattern)
    corpus = prepare(config(texts), tokenizer, tmp_path / "cache")
    assert corpus.tokenizer.pattern == pattern
    whole = corpus.tokenizer.encode_numpy(corpus.tokenizer.decode(corpus.train.tolist()))
    assert np.array_equal(corpus.train, whole)


def test_prepare_takes_special_tokens_inside_documents_for_text(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text("".join(f'{{"text": "{i} {END_OF_TEXT} é"}}\n' for i in range(20)))
    corpus = prepare(config(path), SMALL, tmp_path / "cache")
    assert (corpus.train == 0).sum() == len(corpus.train_documents)
    assert (
        corpus.tokenizer.decode(corpus.train[: corpus.train_documents[0]]).count(END_OF_TEXT) == 2
    )


@pytest.mark.slow
@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=4, max_size=25),
    shard=st.integers(1, 100),
    piece=st.integers(5, 50),
)
def test_prepare_ignores_how_documents_are_cut(
    lengths: list[int], shard: int, piece: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Into shards, and long ones into pieces, which end where no pre-token is cut."""
    texts = {f"{i}": ("word é 12 " * n)[: 5 * n] + "." for i, n in enumerate(lengths)}

    def stream(size: int) -> Iterator[Document]:
        for name, text in texts.items():
            rest = text
            while len(rest) > size and (cut := rest.rfind(" ", 1, size)) > 0:
                yield Document(name, rest[:cut], False)
                rest = rest[cut:]
            yield Document(name, rest)

    folder = tmp_path_factory.mktemp("cut")
    (folder / "a.txt").write_text("a")
    corpora = []
    for size, characters in ((10**9, 10**9), (piece, shard)):
        with pytest.MonkeyPatch.context() as patch:
            for module in (split, survey, shards):
                patch.setattr(module, "documents", lambda data, size=size: stream(size))
            patch.setattr(shards, "_SHARD_CHARACTERS", characters)
            patch.setattr(survey, "_COUNTED_CHARACTERS", characters)
            cache = folder / f"cache-{size}"
            corpora.append(prepare(config(folder / "a.txt"), SMALL, cache))
    for name in ("train", "validation", "train_documents", "validation_documents"):
        assert np.array_equal(getattr(corpora[0], name), getattr(corpora[1], name))
    assert corpora[0].train_bytes == corpora[1].train_bytes


@pytest.mark.slow
def test_prepare_ignores_the_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_library(tmp_path / "library", monkeypatch)
    folders = []
    for processes in (1, 2, 3):
        cache = tmp_path / f"{processes}"
        prepare(DataConfig(), TokenizerConfig(vocab_size=500), cache, processes=processes)
        folders += prepared(cache)
    assert contents(folders[0]) == contents(folders[1]) == contents(folders[2])


def test_prepare_trains_the_tokenizer_on_the_training_part_only(tmp_path: Path) -> None:
    """The most frequent pair of the whole text is in the validation part alone."""
    many = tmp_path / "many.txt"
    lines = [f"abab{'cd' * 3}"] * 40
    many.write_text("\n\n".join(lines))
    data, tokenizer = config(many, separator="\n\n"), TokenizerConfig(vocab_size=258)
    first = prepare(data, tokenizer, tmp_path / "cache")
    held_out = min(range(40), key=lambda number: place(f"many.txt#{number}"))
    lines[held_out] = "zy" * 9_000
    many.write_text("\n\n".join(lines))
    second = prepare(data, tokenizer, tmp_path / "cache")
    assert second.validation_bytes > first.validation_bytes + 10_000
    assert second.tokenizer_fingerprint == first.tokenizer_fingerprint
    assert second.data_fingerprint != first.data_fingerprint


# the split ---------------------------------------------------------------------------------


def test_prepare_always_has_both_parts(tmp_path: Path) -> None:
    """With few documents none may fall below the fraction; the lowest one is then held out."""
    for count in (2, 3, 5):
        (tmp_path / f"{count}.txt").write_text("§".join(["some text"] * count))
        data = config(tmp_path / f"{count}.txt", separator="§", validation_fraction=0.001)
        corpus = prepare(data, SMALL, tmp_path / "cache")
        lowest = min(range(count), key=lambda number: place(f"{count}.txt#{number}"))
        assert (len(corpus.train_documents), len(corpus.validation_documents)) == (count - 1, 1)
        assert place(f"{count}.txt#{lowest}") > 0.001


def test_split_share_is_near_the_fraction() -> None:
    held_out = sum(place(f"doc{i}") <= 0.1 for i in range(20_000))
    assert abs(held_out / 20_000 - 0.1) < 4 * (0.1 * 0.9 / 20_000) ** 0.5


def test_split_keeps_documents_in_place_when_others_are_added(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "b.txt").write_text("§".join(f"document {i}" for i in range(50)))
    data = config(folder, separator="§", validation_fraction=0.2)
    before = decoded(prepare(data, SMALL, tmp_path / "cache"), "validation")
    (folder / "a.txt").write_text("§".join(f"another {i}" for i in range(50)))
    after = decoded(prepare(data, SMALL, tmp_path / "cache"), "validation")
    assert before
    assert {text for text in after if text.startswith("document")} == before


# the cache ---------------------------------------------------------------------------------


def test_prepare_hits_the_cache(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(config(texts), SMALL, tmp_path / "cache")

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(preparation, "_build", fail)
    again = prepare(config(texts), SMALL, tmp_path / "cache")
    assert np.array_equal(first.train, again.train)
    assert again.tokenizer_fingerprint == first.tokenizer_fingerprint == again.tokenizer.fingerprint
    moved = tmp_path / "moved"
    texts.rename(moved)
    prepare(config(moved), SMALL, tmp_path / "cache")  # where the files lie does not count
    for other in (
        TokenizerConfig(vocab_size=271),
        TokenizerConfig(vocab_size=270, pattern="gpt4"),
    ):
        with pytest.raises(AssertionError, match="built again"):
            prepare(config(moved), other, tmp_path / "cache")


def test_prepare_keys_the_cache_by_content(texts: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    prints = {prepare(config(texts), SMALL, cache).data_fingerprint}
    (texts / "0.txt").write_text("Document 0 e.\n")
    prints.add(prepare(config(texts), SMALL, cache).data_fingerprint)
    (texts / "0.txt").rename(texts / "00.txt")
    prints.add(prepare(config(texts), SMALL, cache).data_fingerprint)
    prints.add(prepare(config(texts, separator="§"), SMALL, cache).data_fingerprint)
    assert len(prints) == len(prepared(cache)) == 4
    prepare(config(texts, validation_fraction=0.3), SMALL, cache)
    assert len(prepared(cache)) == 5


def test_cached_loads_and_never_builds(texts: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert cached(config(texts), SMALL, cache) is None
    first = prepare(config(texts), SMALL, cache)
    found = cached(config(texts), SMALL, cache)
    assert found is not None
    assert np.array_equal(found.train, first.train)
    assert cached(config(texts), TokenizerConfig(vocab_size=271), cache) is None


def test_prepare_rebuilds_a_damaged_cache(texts: Path, tmp_path: Path) -> None:
    prepare(config(texts), SMALL, tmp_path / "cache")
    (folder,) = prepared(tmp_path / "cache")
    before = contents(folder)
    (folder / "train.npy").write_bytes(before["train.npy"][:-1] + b"\xff")
    prepare(config(texts), SMALL, tmp_path / "cache")
    assert prepared(tmp_path / "cache") == [folder]
    assert contents(folder) == before


def test_open_corpus_survives_deleted_files(texts: Path, tmp_path: Path) -> None:
    corpus = prepare(config(texts), SMALL, tmp_path / "cache")
    (folder,) = prepared(tmp_path / "cache")
    for path in folder.iterdir():
        path.unlink()
    assert len(decoded(corpus, "train")) == len(corpus.train_documents)


# interruptions -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["limit.json", "tokenizer.json", "shards/000000.npz"])
def test_prepare_makes_damaged_parts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "a.txt").write_text("<|endoftext|>".join(f"text {i}" for i in range(50)))
    data, config = DataConfig(files=(str(tmp_path / "a.txt"),)), TokenizerConfig(vocab_size=260)
    calm = prepare(data, config, tmp_path / "calm")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(preparation, "assemble", interrupted)
        prepare(data, config, tmp_path / "cache")
    (building,) = (tmp_path / "cache").glob(".building-*")
    damaged = building / name
    damaged.write_bytes(damaged.read_bytes()[:-5])
    again = prepare(data, config, tmp_path / "cache")
    assert again.train.tolist() == calm.train.tolist()


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("module", "at", "redone"),
    [
        (preparation, "count_batch", ["survey", "encode"]),
        (preparation, "merge_pretokens", ["survey", "encode"]),
        (shards, "_encode", ["encode"]),
        (preparation, "assemble", []),
        (preparation, "sha256_of", []),
    ],
)
def test_prepare_resumes_after_an_interruption(
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    at: str,
    redone: list[str],
) -> None:
    """What is complete is not done again, and the result is as if nothing had happened."""
    prepare(config(texts), SMALL, tmp_path / "calm")
    monkeypatch.setattr(shards, "_SHARD_CHARACTERS", 100)
    real = getattr(module, at)
    calls: list[object] = []

    def interrupt(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 2 or at in {"merge_pretokens", "count_batch"}:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, at, interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(config(texts), SMALL, tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").iterdir() if "building" in path.name]
    work: list[str] = []
    stages = ((preparation, "survey", "survey"), (shards, "_encode", "encode"))
    for at_work, name, stage in stages:
        function = getattr(at_work, name)

        def spy(*args: Any, function: Any = function, stage: str = stage, **options: Any) -> Any:
            work.append(stage)
            return function(*args, **options)

        monkeypatch.setattr(at_work, name, spy)
    prepare(config(texts), SMALL, tmp_path / "cache")
    assert list(dict.fromkeys(work)) == redone
    (calm,), (resumed,) = prepared(tmp_path / "calm"), prepared(tmp_path / "cache")
    assert contents(calm) == contents(resumed)


def test_prepare_follows_no_link_of_a_cache_of_others(texts: Path, tmp_path: Path) -> None:
    prepare(config(texts), SMALL, tmp_path / "calm")
    (calm,) = prepared(tmp_path / "calm")
    victim, victims = tmp_path / "victim", tmp_path / "victims"
    victim.write_bytes(b"mine")
    victims.mkdir()
    (victims / ".hidden").touch()
    cache = tmp_path / "cache"
    shards = cache / f".building-{calm.name}" / "shards"
    shards.mkdir(parents=True)
    for path in (shards / "000000.writing.npz", shards.parent / "train.npy"):
        path.symlink_to(victim)
    prepare(config(texts), SMALL, cache)
    assert contents(cache / calm.name) == contents(calm)
    shutil.rmtree(cache / calm.name)
    shards.parent.symlink_to(victims)
    prepare(config(texts), SMALL, cache)
    assert contents(cache / calm.name) == contents(calm)
    shutil.rmtree(cache / calm.name)
    (cache / f".{calm.name}.lock").unlink()
    (cache / f".{calm.name}.lock").symlink_to(victim)
    with pytest.raises(CorpusError, match="cannot write the prepared corpus"):
        prepare(config(texts), SMALL, cache)
    assert victim.read_bytes() == b"mine"
    assert [path.name for path in victims.iterdir()] == [".hidden"]


def test_prepare_keeps_no_temporary_file_of_a_killed_process(texts: Path, tmp_path: Path) -> None:
    prepare(config(texts), SMALL, tmp_path / "calm")
    (calm,) = prepared(tmp_path / "calm")
    building = tmp_path / "cache" / f".building-{calm.name}"
    building.mkdir(parents=True)
    (building / ".train.npy.0123abcd").touch()
    prepare(config(texts), SMALL, tmp_path / "cache")
    assert contents(tmp_path / "cache" / calm.name) == contents(calm)


PREPARE = """
import sys
from pathlib import Path
from model.spec.data import DataConfig, TokenizerConfig
from model.corpus.prepare import prepare

def say(progress):
    print(progress.stage, flush=True)

prepare(DataConfig(files=(sys.argv[1],)), TokenizerConfig(vocab_size=400), Path(sys.argv[2]),
        processes=int(sys.argv[3]), on_progress=say)
"""


def start(data: Path, cache: Path, processes: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PREPARE, str(data), str(cache), str(processes)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def children(pid: int) -> list[int]:
    """Worker processes of a process."""
    listed = subprocess.run(["pgrep", "-P", str(pid), "-f", "popen_loky"], stdout=-1, check=False)
    return [int(line) for line in listed.stdout.split()]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 20 MB in documents of 20 kB."""
    path = tmp_path_factory.mktemp("large") / "large.txt"
    source = Path(preparation.__file__).read_text(encoding="utf-8")
    with path.open("w", encoding="utf-8") as file:
        for number in range(20_000_000 // len(source)):
            file.write(f"{number} {source}{END_OF_TEXT}")
    return path


@pytest.mark.slow
def test_prepare_survives_a_kill(large: Path, tmp_path: Path) -> None:
    killed = start(large, tmp_path / "cache", 2)
    assert killed.stdout is not None
    for line in killed.stdout:
        if line == "encoding\n":
            break
    workers = children(killed.pid)
    assert workers
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    patience = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < patience, "a worker outlived its parent"
        time.sleep(0.1)
    (building,) = (tmp_path / "cache").glob(".building-*")
    shards = {path: path.stat().st_mtime_ns for path in building.glob("shards/*.npz")}
    assert 0 < len(shards)
    resumed = start(large, tmp_path / "cache", 1)
    output, _ = resumed.communicate()
    assert resumed.returncode == 0
    assert "counting" not in output
    assert "encoding" in output
    (folder,) = prepared(tmp_path / "cache")
    again = start(large, tmp_path / "calm", 1)
    again.communicate()
    (calm,) = prepared(tmp_path / "calm")
    assert contents(folder) == contents(calm)


@pytest.mark.slow
def test_prepare_waits_for_another_process(large: Path, tmp_path: Path) -> None:
    both = [start(large, tmp_path / "cache", 1) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("encoding" in output for output in outputs) == [False, True]
    assert any("waiting for another process" in output for output in outputs)
    assert len(prepared(tmp_path / "cache")) == 1


def test_prepare_at_once_in_several_threads(texts: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        found = list(
            pool.map(lambda _: prepare(config(texts), SMALL, tmp_path / "cache"), range(6))
        )
    assert all(np.array_equal(corpus.train, found[0].train) for corpus in found)
    assert len(prepared(tmp_path / "cache")) == 1


# bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            b"only one document",
            {"separator": "|"},
            "the split is by document, and there is only one; give several files, another separ",
        ),
        (b"only one document", {"split_by": "document"}, "there is only one; give several files"),
        (b"x", {}, "a text of one character cannot be split"),
        (b"\xff\xfe", {}, r"a\.txt is not UTF-8 at byte 0"),
        (b"a <|endoftext|> b\xff", {}, r"a\.txt is not UTF-8 at byte 17"),
        (b" \n", {}, r"a\.txt is empty"),
        (
            b"a|b|c",
            {"separator": "|", "validation_fraction": 0.999999},
            "lower validation_fraction",
        ),
    ],
)
def test_prepare_reports_errors_and_leaves_no_files(
    tmp_path: Path, text: bytes, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "a.txt").write_bytes(text)
    with pytest.raises(CorpusError, match=message):
        prepare(config(tmp_path / "a.txt", **options), SMALL, tmp_path / "cache")
    assert prepared(tmp_path / "cache") == []
    with pytest.raises(CorpusError, match=r"cannot read .*missing\.txt: No such file"):
        prepare(config(tmp_path / "missing.txt"), SMALL, tmp_path / "cache")


def test_prepare_refuses_data_that_change_meanwhile(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = preparation.assemble

    def assemble(*args: Any) -> int:
        (texts / "0.txt").write_text("something else\n")
        return real(*args)

    monkeypatch.setattr(preparation, "assemble", assemble)
    with pytest.raises(CorpusError, match="it changed while it was prepared"):
        prepare(config(texts), SMALL, tmp_path / "cache")
    assert prepared(tmp_path / "cache") == []


def test_prepare_reports_write_errors(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(CorpusError, match=r"cannot write .* to .*cache: No space left on device"):
        prepare(config(texts), SMALL, tmp_path / "cache")


def test_prepare_takes_a_given_tokenizer(texts: Path, tmp_path: Path) -> None:
    """Its ids are used, nothing is trained, and where it lies does not matter."""
    trained = prepare(config(texts), SMALL, tmp_path / "cache").tokenizer
    trained.save(tmp_path / "a", "huggingface")
    trained.save(tmp_path / "b", "gpt2")
    some, more = config(texts / "*.txt"), tmp_path / "more"
    corpora = [
        prepare(some, TokenizerConfig(file=str(tmp_path / name)), more)
        for name in ("a", "a/tokenizer.json", "b")
    ]
    assert {corpus.tokenizer_fingerprint for corpus in corpora} == {trained.fingerprint}
    assert len(prepared(more)) == 1
    own = prepare(some, SMALL, more)
    assert own.tokenizer_fingerprint != trained.fingerprint
    assert decoded(own, "train") == decoded(corpora[0], "train")
    assert cached(some, TokenizerConfig(file=str(tmp_path / "b")), more) is not None


def test_prepare_reads_special_tokens_in_any_order(texts: Path, tmp_path: Path) -> None:
    """A fingerprint is that of the tokenizer, not of how a file lists its added tokens."""
    trained = prepare(config(texts), SMALL, tmp_path / "cache").tokenizer
    more = [END_OF_TEXT, "<|pad|>"]
    made = type(trained)(trained.vocab, trained.merges, more)
    (path,) = made.save(tmp_path / "more", "huggingface")
    contents = json.loads(path.read_text(encoding="utf-8"))
    contents["added_tokens"].reverse()
    path.write_text(json.dumps(contents), encoding="utf-8")
    corpus = prepare(config(texts), TokenizerConfig(file=str(path)), tmp_path / "cache")
    assert corpus.tokenizer_fingerprint == made.fingerprint


def test_prepare_reports_errors_of_a_given_tokenizer(texts: Path, tmp_path: Path) -> None:
    trained = prepare(config(texts), SMALL, tmp_path / "cache").tokenizer
    end = END_OF_TEXT.encode()
    rest = {i: token for i, token in trained.vocab.items() if token != end}
    (bare,) = type(trained)(rest, trained.merges).save(tmp_path / "bare", "huggingface")
    (tmp_path / "broken.json").write_text("{}")
    for file, message in (
        (bare, "has no token <|endoftext|>, which stands between documents; add it"),
        (tmp_path / "none.json", "tokenizer.file: cannot read .*none.json: No such file"),
        (tmp_path / "broken.json", "broken.json cannot be used: .*not a tokenizer.json"),
    ):
        with pytest.raises(CorpusError, match=message):
            prepare(config(texts), TokenizerConfig(file=str(file)), tmp_path / "cache")


@pytest.mark.parametrize("processes", [1, 2])
def test_prepare_takes_a_tokenizer_without_all_bytes(tmp_path: Path, processes: int) -> None:
    """If the text needs none of those that are missing."""
    vocab = dict(enumerate([b"a", b"b", b" ", b"ab", END_OF_TEXT.encode()]))
    Tokenizer(vocab, [(b"a", b"b")], [END_OF_TEXT]).save(tmp_path / "few", "huggingface")
    few, cache = TokenizerConfig(file=str(tmp_path / "few")), tmp_path / "cache"
    (tmp_path / "good.txt").write_text("ab a b " * 20)
    corpus = prepare(config(tmp_path / "good.txt"), few, cache, processes=processes)
    assert corpus.vocab_size == 5
    assert corpus.train[:4].tolist() == [3, 2, 0, 2]
    (tmp_path / "bad.txt").write_text("ab a b " * 20 + "ac")
    with pytest.raises(
        CorpusError, match=r"data: bad\.txt#0: .* no token for the byte 0x63 \('c'\)"
    ):
        prepare(config(tmp_path / "bad.txt"), few, cache, processes=processes)
    assert len(prepared(cache)) == 1
