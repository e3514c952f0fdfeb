"""From text files to sequences: sources, split, cache."""

from __future__ import annotations

import errno
import json
import shutil
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from model import corpus as corpus_module
from model import sources as sources_module
from model.corpus import Corpus, cached, get_batch, prepare, sequences
from model.sources import END_OF_TEXT, SOURCES, CorpusError, DataConfig, source_bytes

VOCAB = 270


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Twelve small documents in a folder with others that are no text."""
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    for i in range(12):
        name = f"deep/{i}.md" if i % 2 else f"{i}.txt"
        (folder / name).write_text(f"Document {i} é.\n" * (i + 1), encoding="utf-8")
    (folder / "folder.py").mkdir()
    (folder / "picture.png").write_bytes(b"\xff\x00")
    return folder


def config(*files: Path | str, **more: Any) -> DataConfig:
    return DataConfig(files=tuple(map(str, files)), **more)


def prepare_in(data: DataConfig, folder: Path) -> Corpus:
    return prepare(data, VOCAB, folder)


def cached_in(data: DataConfig, folder: Path) -> Corpus | None:
    return cached(data, VOCAB, folder)


def documents(data: DataConfig) -> dict[str, str]:
    return dict(corpus_module._documents(data))


def decoded(corpus: Corpus, split: str) -> set[str]:
    """The documents of a split, as the token ids say."""
    ids = getattr(corpus, split).tolist()
    *found, rest = corpus.tokenizer.decode(ids).split(END_OF_TEXT)
    assert rest == ""
    return set(found)


@pytest.mark.parametrize(
    "given_rows",
    [
        {"source": None, "files": None},
        {"source": "python-stdlib", "files": ["a"]},
        {"files": []},
        {"source": "somewhere-else"},
        {"files": ["a"], "separator": ""},
        {"files": ["a"], "validation_fraction": 0},
        {"files": ["a"], "validation_fraction": 1},
        {"files": ["a"], "unknown": 1},
    ],
)
def test_data_config_refuses_what_makes_no_sense(given_rows: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DataConfig(**given_rows)


@pytest.mark.parametrize("given_rows", [{}, {"validation_fraction": 0.1}])
def test_data_config_defaults_to_the_standard_library(given_rows: dict[str, Any]) -> None:
    data = DataConfig(**given_rows)
    assert (data.source, data.files, data.kind) == ("python-stdlib", None, "python-stdlib")
    assert DataConfig(files=("a",)).source is None
    assert DataConfig.model_validate(data.model_dump()) == data, "a record of it reads back"
    assert DataConfig.model_validate(config("a").model_dump()) == config("a")


def test_files_reads_a_folder_a_pattern_and_a_path(texts: Path) -> None:
    folder = documents(config(texts))
    assert len(folder) == 12
    assert folder["deep/3.md#0"] == "Document 3 é.\n" * 4
    assert set(documents(config(texts / "*.txt"))) == {f"{i}.txt#0" for i in range(0, 12, 2)}
    assert set(documents(config(texts / "**" / "*.md"))) == {f"{i}.md#0" for i in range(1, 12, 2)}
    both = documents(config(texts / "0.txt", texts / "deep" / "1.md"))
    assert list(both) == ["0.txt#0", "1.md#0"]


def test_files_of_one_name_stay_apart_and_may_move_together(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        for inner in ("a", "b"):
            (tmp_path / folder / inner).mkdir(parents=True)
            (tmp_path / folder / inner / "x.txt").write_text(inner)
    for pattern in ("", "**/*.txt"):
        here, there = (documents(config(tmp_path / f / pattern)) for f in ("here", "there"))
        assert here == there == {"a/x.txt#0": "a", "b/x.txt#0": "b"}


def test_files_name_may_hold_pattern_characters(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("one")
    assert documents(config(tmp_path / "a[1].txt")) == {"a[1].txt#0": "one"}


@pytest.mark.parametrize(
    ("separator", "expected"),
    [
        (END_OF_TEXT, ["one\n\n two\n\n\n\nthree\r\n"]),
        ("\n\n", ["one", " two", "three\r\n"]),
        ("two", ["one\n\n ", "\n\n\n\nthree\r\n"]),
    ],
)
def test_files_are_cut_at_the_separator(
    tmp_path: Path, separator: str, expected: list[str]
) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(b"one\n\n two\n\n\n\nthree\r\n")
    assert list(documents(config(path, separator=separator)).values()) == expected


def make_missing(folder: Path) -> Path:
    return folder / "missing.txt"


def make_empty(folder: Path) -> Path:
    (folder / "empty.txt").write_text(" \n")
    return folder / "empty.txt"


def make_latin(folder: Path) -> Path:
    (folder / "latin.txt").write_bytes(b"caf\xe9 ol\xe9")
    return folder / "latin.txt"


def make_bare_folder(folder: Path) -> Path:
    (folder / "bare").mkdir()
    (folder / "bare" / "x.png").write_bytes(b"")
    return folder / "bare"


def make_unmatched(folder: Path) -> Path:
    return folder / "*.nothing"


def make_separators(folder: Path) -> Path:
    (folder / "separators.txt").write_text(f"{END_OF_TEXT}\n{END_OF_TEXT} ")
    return folder / "separators.txt"


def make_single(folder: Path) -> Path:
    (folder / "single.txt").write_text("only one document")
    return folder / "single.txt"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_missing, r"cannot read .*missing\.txt: No such file"),
        (make_empty, r"empty\.txt is empty"),
        (make_latin, r"latin\.txt is not UTF-8 at byte 3 \(0xe9\)"),
        (make_bare_folder, r"bare holds no \.txt, \.md, \.py, .* file"),
        (make_unmatched, r"\*\.nothing holds no"),
        (make_single, r"split is by document, and there is only one; give several files"),
        (make_separators, r"there are no documents, only separators"),
    ],
)
def test_prepare_says_what_is_wrong_with_a_source(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        prepare(config(make(tmp_path)), VOCAB, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("use", [lambda data, _: source_bytes(data), cached_in, prepare_in])
def test_no_permission_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[DataConfig, Path], object]
) -> None:
    """The permission is taken by hand: tests may run as root, who may read everything."""
    path = tmp_path / "private.txt"
    path.write_text("secret")

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    data = config(path)
    monkeypatch.setattr(Path, "exists", lambda self: True)
    monkeypatch.setattr(Path, "is_dir", lambda self: False)
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(CorpusError, match=r"cannot read .*private\.txt: Permission denied"):
        use(data, tmp_path / "cache")


def test_prepare_refuses_a_split_without_training_part(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="every document falls into the validation part"):
        prepare(config(texts, validation_fraction=0.999999), VOCAB, tmp_path / "cache")


def test_prepare_refuses_a_small_vocabulary(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 257"):
        prepare(config(texts), 256, tmp_path / "cache")


def test_prepare_covers_every_document_once(texts: Path, tmp_path: Path) -> None:
    data = config(texts, validation_fraction=0.4)
    said: list[str] = []
    corpus = prepare(data, VOCAB, tmp_path / "cache", said.append)
    train, validation = decoded(corpus, "train"), decoded(corpus, "validation")
    assert train | validation == set(documents(data).values())
    assert not train & validation
    assert (len(train), len(validation)) == (
        corpus.num_train_documents,
        corpus.num_validation_documents,
    )
    assert corpus.train_bytes == sum(len(text.encode()) for text in train)
    assert corpus.validation_bytes == sum(len(text.encode()) for text in validation)
    assert corpus.tokenizer.vocab_size == VOCAB
    assert corpus.train.dtype == np.uint16
    assert said == ["reading documents", "training the tokenizer", "encoding"]


def test_prepare_trains_the_tokenizer_on_the_training_part_only(tmp_path: Path) -> None:
    """The most frequent pair of the whole text is in the validation part alone."""
    many = tmp_path / "many.txt"
    many.write_text("\n\n".join(f"abab{'cd' * 3}" for _ in range(40)))
    first = prepare(config(many, separator="\n\n"), 258, tmp_path / "cache")
    lines = many.read_text().split("\n\n")
    for number in range(40):
        text = [*lines[:number], "zy" * 9_000, *lines[number + 1 :]]
        if f"many.txt#{number}" in held_out_names(config(many, separator="\n\n")):
            many.write_text("\n\n".join(text))
            break
    second = prepare(config(many, separator="\n\n"), 258, tmp_path / "cache")
    assert second.validation_bytes > first.validation_bytes + 10_000
    assert second.tokenizer_fingerprint == first.tokenizer_fingerprint
    assert second.data_fingerprint != first.data_fingerprint


def held_out_names(data: DataConfig) -> set[str]:
    return {name for name, _ in corpus_module._split(list(documents(data).items()), data)[1]}


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(2, 40),
    fraction=st.sampled_from([0.01, 0.05, 0.2]),
    prefix=st.text(max_size=4),
)
def test_split_always_has_both_parts(count: int, fraction: float, prefix: str) -> None:
    """With few documents none may fall below the fraction; the lowest one is then held out."""
    named = [(f"{prefix}{i}", "text") for i in range(count)]
    try:
        train, validation = corpus_module._split(named, config("x", validation_fraction=fraction))
    except CorpusError:
        return  # all of very few fall below a large fraction
    assert train and validation
    assert sorted(train + validation) == sorted(named)


def test_split_share_is_near_the_fraction() -> None:
    named = [(f"doc{i}", "") for i in range(20_000)]
    _, validation = corpus_module._split(named, config("x", validation_fraction=0.1))
    assert abs(len(validation) / 20_000 - 0.1) < 4 * (0.1 * 0.9 / 20_000) ** 0.5


def test_split_keeps_documents_in_place_when_others_are_added() -> None:
    data = config("x", validation_fraction=0.2)
    few = [(f"doc{i}", "") for i in range(50)]
    _, before = corpus_module._split(few, data)
    _, after = corpus_module._split([("a new one", ""), *few, ("another", "")], data)
    assert before
    assert {d for d in after if d in few} == set(before)


def test_prepare_hits_the_cache(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(config(texts), VOCAB, tmp_path / "cache")

    def fail(*args: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(corpus_module, "merge_pretokens", fail)
    again = prepare(config(texts), VOCAB, tmp_path / "cache")
    assert np.array_equal(first.train, again.train)
    assert np.array_equal(first.validation, again.validation)
    assert isinstance(again.train, np.memmap)
    assert again.tokenizer_fingerprint == first.tokenizer_fingerprint == again.tokenizer.fingerprint
    moved = tmp_path / "moved"
    texts.rename(moved)
    prepare(config(moved), VOCAB, tmp_path / "cache")  # where the files lie does not count
    with pytest.raises(AssertionError, match="trained again"):
        prepare(config(moved), VOCAB + 1, tmp_path / "cache")


def test_prepare_keys_the_cache_by_content(texts: Path, tmp_path: Path) -> None:
    data = config(texts)
    first = prepare(data, VOCAB, tmp_path / "cache")
    prints = {first.data_fingerprint}
    (texts / "0.txt").write_text("Document 0 e.\n")
    prints.add(prepare(data, VOCAB, tmp_path / "cache").data_fingerprint)
    (texts / "0.txt").rename(texts / "00.txt")
    prints.add(prepare(data, VOCAB, tmp_path / "cache").data_fingerprint)
    resplit = config(texts, validation_fraction=0.3)
    prints.add(prepare(resplit, VOCAB, tmp_path / "cache").data_fingerprint)
    recut = config(texts, separator="§")
    prints.add(prepare(recut, VOCAB, tmp_path / "cache").data_fingerprint)
    assert len(prints) == 5
    assert len(list((tmp_path / "cache").iterdir())) == 5


def test_cached_loads_and_never_builds(texts: Path, tmp_path: Path) -> None:
    assert cached(config(texts), VOCAB, tmp_path / "cache") is None
    assert not (tmp_path / "cache").exists()
    first = prepare(config(texts), VOCAB, tmp_path / "cache")
    found = cached(config(texts), VOCAB, tmp_path / "cache")
    assert found is not None
    assert np.array_equal(found.train, first.train)
    assert found.data_fingerprint == first.data_fingerprint
    assert cached(config(texts), VOCAB + 1, tmp_path / "cache") is None
    (folder,) = (tmp_path / "cache").iterdir()
    flip(folder / "train.npy")
    assert cached(config(texts), VOCAB, tmp_path / "cache") is None


def test_prepare_again_from_nothing_gives_the_same_bytes(texts: Path, tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        prepare(config(texts), VOCAB, tmp_path / name)
        (folder,) = (tmp_path / name).iterdir()
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]
    assert set(contents[0]) == {
        "train.npy", "validation.npy", "vocab.json", "merges.txt", "meta.json"
    }  # fmt: skip


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE = {
    "flipped tokens": lambda folder: flip(folder / "train.npy"),
    "flipped validation": lambda folder: flip(folder / "validation.npy"),
    "truncated tokens": lambda folder: (folder / "train.npy").write_bytes(b"\x93NUMPY"),
    "no tokens": lambda folder: (folder / "train.npy").unlink(),
    "no meta": lambda folder: (folder / "meta.json").unlink(),
    "empty meta": lambda folder: (folder / "meta.json").write_text(""),
    "other meta": lambda folder: (folder / "meta.json").write_text("[]"),
    "bare meta": lambda folder: (folder / "meta.json").write_text("{}"),
    "old format": lambda folder: rewrite(folder / "meta.json", format=0),
    "meta without counts": lambda folder: rewrite(
        folder / "meta.json",
        train={"sha256": json.loads((folder / "meta.json").read_text())["train"]["sha256"]},
    ),
    "other data": lambda folder: rewrite(folder / "meta.json", data_fingerprint="0"),
    "fewer merges": lambda folder: (folder / "merges.txt").write_text("#version: 0.2\n"),
    "other vocabulary": lambda folder: (folder / "vocab.json").write_text("[]"),
    "not utf-8": lambda folder: (folder / "vocab.json").write_bytes(b"\xff"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_prepare_rebuilds_a_damaged_cache(texts: Path, tmp_path: Path, damage: str) -> None:
    first = prepare(config(texts), VOCAB, tmp_path / "cache")
    tokens = np.array(first.train)
    (folder,) = (tmp_path / "cache").iterdir()
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    DAMAGE[damage](folder)
    again = prepare(config(texts), VOCAB, tmp_path / "cache")
    assert np.array_equal(again.train, tokens)
    assert again.tokenizer_fingerprint == first.tokenizer_fingerprint
    assert list((tmp_path / "cache").iterdir()) == [folder]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


@pytest.mark.parametrize("place", ["_sha256", "count_pretokens", "merge_pretokens"])
def test_prepare_interrupted_leaves_nothing(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corpus_module, place, interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(config(texts), VOCAB, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))
    assert prepare(config(texts), VOCAB, tmp_path / "cache").num_train_documents


def test_prepare_survives_a_faster_process(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process puts the same corpus in place while this one still writes."""
    real = corpus_module._sha256
    nested: list[Corpus] = []

    def sha256(path: Path) -> str:
        if not nested and "preparing" in str(path):
            nested.append(None)  # type: ignore[arg-type]
            nested[0] = prepare(config(texts), VOCAB, tmp_path / "cache")
        return real(path)

    monkeypatch.setattr(corpus_module, "_sha256", sha256)
    corpus = prepare(config(texts), VOCAB, tmp_path / "cache")
    assert np.array_equal(corpus.train, nested[0].train)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_prepare_keeps_its_corpus_whatever_happens_to_the_folder(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may take the folder away as soon as it is in place."""
    real = corpus_module._put

    def put_and_lose(building: Path, folder: Path, aside: Path) -> None:
        real(building, folder, aside)
        shutil.rmtree(folder)

    monkeypatch.setattr(corpus_module, "_put", put_and_lose)
    corpus = prepare(config(texts), VOCAB, tmp_path / "cache")
    assert len(decoded(corpus, "train")) == corpus.num_train_documents


def test_put_leaves_the_result_of_a_faster_process(tmp_path: Path) -> None:
    """It comes back between the two steps: the damaged one is aside, the new one not yet there."""
    building, folder, aside = tmp_path / "building", tmp_path / "folder", tmp_path / "aside"
    building.mkdir()

    class Raced(type(folder)):  # type: ignore[misc]
        def rename(self, target: Path) -> Path:
            moved: Path = Path(self).rename(target)
            folder.mkdir()
            (folder / "theirs").touch()
            return moved

    folder.mkdir()
    corpus_module._put(building, Raced(folder), aside)
    assert (folder / "theirs").exists()
    assert aside.exists() and building.exists()
    with pytest.raises(FileNotFoundError):
        corpus_module._put(tmp_path / "never built", tmp_path / "empty", aside)


def test_prepare_at_once_in_several_threads(texts: Path, tmp_path: Path) -> None:
    prepare(config(texts), VOCAB, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    flip(folder / "train.npy")
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(prepare_in, [config(texts)] * 6, [tmp_path / "cache"] * 6))
    assert all(np.array_equal(corpus.train, found[0].train) for corpus in found)
    assert cached(config(texts), VOCAB, tmp_path / "cache") is not None
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_python_stdlib_leaves_out_what_is_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ["a.py", "json/decoder.py", "turtle.py"]
    left_out = [
        "site-packages/x.py", "dist-packages/x.py", "test/x.py", "json/tests/x.py",
        "idlelib/x.py", "lib2to3/x.py", "ensurepip/_bundled/x.py", "config-3.11-x86_64/x.py",
        "_sysconfigdata__linux_x86_64.py", "sitecustomize.py", "__pycache__/x.py", "x.txt",
    ]  # fmt: skip
    for name in [*reversed(kept), *left_out]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    names = [document.name for document in SOURCES["python-stdlib"](DataConfig())]
    assert sorted(names) == kept
    assert names == [document.name for document in SOURCES["python-stdlib"](DataConfig())]


def test_python_stdlib_is_deterministic_library_text() -> None:
    data = DataConfig(source="python-stdlib")
    listing = sources_module.source_files(data)
    names = [file.name for file in listing]
    assert listing == sources_module.source_files(data)
    assert len(set(names)) == len(names) > 300
    assert {"json/decoder.py", "argparse.py", "asyncio/events.py"} <= set(names)
    assert not [name for name in names if "/test" in name or "site-packages" in name]
    assert 5e6 < source_bytes(data) < 20e6
    root = Path(sysconfig.get_paths()["stdlib"])
    assert source_bytes(data) == sum((root / name).stat().st_size for name in names)


def test_source_bytes_of_files(texts: Path) -> None:
    size = sum(len(text.encode()) for text in documents(config(texts)).values())
    assert source_bytes(config(texts)) == size
    with pytest.raises(CorpusError, match=r"cannot read .*missing"):
        source_bytes(config(texts / "missing.txt"))


@pytest.mark.parametrize(
    ("length", "context", "expected"), [(0, 4, 0), (1, 4, 0), (4, 4, 0), (5, 4, 1), (13, 4, 3)]
)
def test_num_sequences_counts_those_with_a_next_token(
    texts: Path, tmp_path: Path, length: int, context: int, expected: int
) -> None:
    prepared = prepare(config(texts), VOCAB, tmp_path / "cache")
    tokens = np.arange(length, dtype=np.uint16)
    corpus = Corpus(tokens, tokens[:0], prepared.tokenizer, "", "", 1, 1, 0, 0)
    assert corpus.num_sequences("train", context) == expected
    assert corpus.num_sequences("validation", context) == 0
    if expected:
        x, y = sequences(tokens, np.arange(expected), context)
        assert x.reshape(-1).tolist() == list(range(expected * context))
        assert y.reshape(-1).tolist() == list(range(1, expected * context + 1))


def test_sequences_keeps_the_shape_of_the_indices() -> None:
    tokens = np.arange(100, dtype=np.uint32) * 3
    x, y = sequences(tokens, np.array([[[2, 0], [5, 18]]]), 5)
    assert x.shape == y.shape == (1, 2, 2, 5)
    assert x.dtype == y.dtype == np.int64
    assert x[0, 1, 0].tolist() == [75, 78, 81, 84, 87]
    assert (y == x + 3).all()


@pytest.mark.parametrize("k", [1, 3])
def test_get_batch_draws_windows_with_their_next_tokens(k: int) -> None:
    data = np.arange(20, dtype=np.uint16)
    x, y = get_batch(data, 500, 7, "cpu", k=k, seed=1)
    assert x.shape == y.shape == (k, 500, 7)
    assert x.dtype == y.dtype == torch.int64
    assert torch.equal(y, x + 1)
    assert torch.equal(x, x[..., :1] + torch.arange(7))
    assert set(x[..., 0].flatten().tolist()) == set(range(13)), "every window, the last included"
    assert all(not torch.equal(x[0], x[slot]) for slot in range(1, k))
    assert torch.equal(x, get_batch(data, 500, 7, "cpu", k=k, seed=1)[0])
    assert not torch.equal(x, get_batch(data, 500, 7, "cpu", k=k, seed=2)[0])


def test_get_batch_takes_a_list_and_the_shortest_text() -> None:
    x, y = get_batch([5, 6, 7], 2, 2, "cpu")
    assert x.tolist() == [[[5, 6], [5, 6]]]
    assert y.tolist() == [[[6, 7], [6, 7]]]
    with pytest.raises(ValueError, match="has 2 tokens; one window needs 3"):
        get_batch([5, 6], 2, 2, "cpu")
