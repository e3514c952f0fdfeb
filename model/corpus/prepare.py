"""Preparation of a corpus: documents become token ids on disk, cached and resumable.

A corpus is a folder of the cache. Its name is a hash of everything that it depends on. The folder
is built under a temporary name, under a lock that other processes wait for, in steps that survive
an interruption:

    survey      split the documents; count the pre-tokens that the tokenizer is trained on
    encode      write shards of about two million characters, each a file
    assemble    join the shards into one array per split, with checksums

K = slots in a stack, B = sequences, T = tokens.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from model.corpus.corpus import CHOICES, FORMAT, Corpus, files_of, load, sha256_of
from model.corpus.examples import ExampleDataset, num_known
from model.corpus.shards import assemble, encode_shard, shards_of
from model.corpus.split import DocumentSplit, PositionSplit, Split
from model.corpus.survey import Work, count_batch, count_texts, measure_batch, survey
from model.errors import CorpusError
from model.files import replacing
from model.parallel import ordered_map
from model.progress import OnProgress, Progress, silent
from model.sources.choices import read_choices
from model.sources.fingerprint import Fingerprint, fingerprint
from model.sources.registry import documents
from model.spec.chat import ChatFormat
from model.spec.data import END_OF_TEXT, SPLITS, DataConfig, TokenizerConfig
from model.tokenizer.bpe import check_pattern, check_vocab_size, merge_pretokens
from model.tokenizer.load import load_tokenizer, open_tokenizer
from model.tokenizer.tokenizer import Tokenizer

_MEMO = "digests.json"


def prepare(
    data: DataConfig,
    tokenizer: TokenizerConfig,
    cache_dir: Path,
    *,
    processes: int | None = None,
    on_progress: OnProgress = silent,
) -> Corpus:
    """Split the documents, train or load the tokenizer, and encode; or load all from the cache.

    Args:
        data: source of the text.
        tokenizer: the tokenizer to train, or the file that holds it.
        cache_dir: folder of the prepared corpora.
        processes: number of processes; by default one per core, or one for a small source.
        on_progress: called with the progress.

    Raises:
        CorpusError: if the source or the tokenizer cannot be used, or the cache cannot be written.
    """
    on_progress(Progress("fingerprinting the data", 0, None, "B"))
    check_vocab_size(tokenizer.vocab_size, [END_OF_TEXT])
    chosen = load_tokenizer(tokenizer) or tokenizer
    data = _with_chat(data, chosen)
    memo = cache_dir / _MEMO
    identity = fingerprint(data, memo)
    folder = _folder(cache_dir, data, chosen, identity.digest)
    corpus = load(folder, data, tokenizer)
    if corpus is not None:
        return corpus
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _locked(cache_dir / f".{folder.name}.lock", on_progress):
            # The process that held the lock before may have prepared the same corpus.
            corpus = load(folder, data, tokenizer)
            if corpus is not None:
                return corpus
            building = cache_dir / f".building-{folder.name}"
            try:
                work = Work.on(data, processes, on_progress)
                _build(building, data, chosen, identity, work)
                if fingerprint(data, memo).digest != identity.digest:
                    raise CorpusError("data: it changed while it was prepared; start again")
            except CorpusError:
                shutil.rmtree(building, ignore_errors=True)
                raise
            # Loaded before the folder is renamed: a mapped file stays readable even if another
            # process deletes the folder right after.
            corpus = load(building, data, tokenizer)
            assert corpus is not None
            shutil.rmtree(folder, ignore_errors=True)  # a damaged corpus, or `load` had found it
            building.rename(folder)
            return corpus
    except OSError as error:
        raise CorpusError(
            f"data: cannot write the prepared corpus to {cache_dir}: {error.strerror}; free some "
            f"space or choose another folder"
        ) from error
    except BrokenExecutor as error:
        raise CorpusError(
            "data: a process that prepared it was killed, perhaps for lack of memory; start again: "
            "the preparation resumes where it stopped"
        ) from error


def cached(
    data: DataConfig, tokenizer: TokenizerConfig, cache_dir: Path, *, digest: str | None = None
) -> Corpus | None:
    """Load from the cache what `prepare` would load; return None if it would have to build.

    Args:
        data: source of the text.
        tokenizer: as for `prepare`.
        cache_dir: folder of the prepared corpora.
        digest: fingerprint of an earlier state of the source, whose corpus is wanted; None reads
            the source as it is.

    Raises:
        CorpusError: if the source or the tokenizer cannot be read.
    """
    if not cache_dir.exists():
        return None
    chosen = load_tokenizer(tokenizer) or tokenizer
    data = _with_chat(data, chosen)
    digest = digest or fingerprint(data, cache_dir / _MEMO).digest
    return load(_folder(cache_dir, data, chosen, digest), data, tokenizer)


def _with_chat(data: DataConfig, tokenizer: Tokenizer | TokenizerConfig) -> DataConfig:
    """Return the data with the format of their examples, which needs the tokens of a tokenizer.

    Raises:
        CorpusError: if there are examples, and no tokenizer is given.
    """
    if not data.examples:
        return data
    if not isinstance(tokenizer, Tokenizer):
        raise CorpusError(
            "data.examples: a tokenizer that is trained lacks the marks of chats; give init_from: "
            "{huggingface: FOLDER}, or tokenizer: {file: …}"
        )
    return data.model_copy(update={"chat": data.chat or ChatFormat(end=tokenizer.end_of_text)})


def train_tokenizer(
    data: DataConfig,
    vocab_size: int,
    special_tokens: Sequence[str],
    pattern: str = "gpt2",
    *,
    processes: int | None = None,
    on_progress: OnProgress = silent,
) -> Tokenizer:
    """Train a tokenizer on all documents of a source.

    Args:
        data: source of the text; the validation documents are trained on, too.
        vocab_size: as in `train_bpe`.
        special_tokens: as in `train_bpe`; in a document, their spelling is text.
        pattern: as in `train_bpe`.
        processes: number of processes; by default one per core, or one for a small source.
        on_progress: called with the progress.

    Raises:
        CorpusError: if the source cannot be read.
        ValueError: as `train_bpe`.
    """
    check_vocab_size(vocab_size, special_tokens)
    check_pattern(pattern)
    count = partial(count_batch, pattern=pattern, special_tokens=special_tokens)
    texts = (document.text for document in documents(data))
    counts = count_texts(texts, count, Work.on(data, processes, on_progress))
    trained = merge_pretokens(counts, vocab_size, special_tokens, on_progress=on_progress)
    return Tokenizer(*trained, special_tokens, pattern)


def _folder(
    cache_dir: Path,
    data: DataConfig,
    tokenizer: TokenizerConfig | Tokenizer,
    digest: str,
) -> Path:
    """Path of a corpus in the cache."""
    if isinstance(tokenizer, Tokenizer):
        chosen: Any = tokenizer.fingerprint  # the path of its file does not count
    else:
        chosen = tokenizer.model_dump(mode="json", exclude={"file"})
    parts = [FORMAT, digest, data.validation_fraction, chosen]
    if data.split_by is not None:  # left to the documents, the split follows from the digest
        parts.append(data.split_by)
    if data.chat is not None:
        parts.append(data.chat.model_dump(mode="json"))
    return cache_dir / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


@contextmanager
def _locked(path: Path, on_progress: OnProgress) -> Iterator[None]:
    """Hold the lock of a corpus, so that one process prepares it and others wait.

    The operating system releases the lock of a process that dies.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)  # a link may lead anywhere
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress(Progress("waiting for another process to prepare it", 0, None, "B"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _build(
    building: Path,
    data: DataConfig,
    chosen: TokenizerConfig | Tokenizer,
    identity: Fingerprint,
    work: Work,
) -> None:
    """Build a corpus in a folder, or resume where an interrupted process stopped."""
    _tidy(building)
    shards = building / "shards"
    limit_path = building / "limit.json"
    if _saved_split(building) is None:
        shutil.rmtree(building, ignore_errors=True)  # of a damaged or earlier step
    shards.mkdir(parents=True, exist_ok=True)
    if not limit_path.exists():
        # Written after the tokenizer: if the limit exists, the tokenizer is complete.
        if isinstance(chosen, Tokenizer):
            split, _ = survey(data, measure_batch, work)
            chosen.save(building, "huggingface")
        else:
            split = _train(building, data, chosen, work)
        _write_json(
            limit_path, {"cut": split.cut} if isinstance(split, PositionSplit) else split[0]
        )
    saved = _saved_split(building)
    assert saved is not None
    split, tokenizer = saved
    pieces = shards_of(data, split, building, shards, tokenizer.fingerprint)
    count = done = 0
    for num_bytes in ordered_map(encode_shard, pieces, work.processes):
        count, done = count + 1, done + num_bytes
        work.on_progress(Progress("encoding", done, work.num_bytes, "B"))
    work.on_progress(Progress("assembling", 0, None, "B"))
    paths = [shards / f"{number:06}.npz" for number in range(count)]
    sizes = {split: assemble(building, split, paths, tokenizer) for split in SPLITS}
    _write_json(building / "files.json", identity.files)
    if data.multiple_choice is not None:
        with replacing(building / CHOICES) as file:
            read_choices(data.multiple_choice, tokenizer).save(file)
    meta: dict[str, Any] = {
        "format": FORMAT,
        "data_fingerprint": identity.digest,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "has_pairs": data.pairs,
        "split_by": "position" if isinstance(split, PositionSplit) else "document",
        "bytes": sizes,
        "sha256": {name: sha256_of(building / name) for name in files_of(data)},
    }
    if data.examples:
        meta["num_known"] = num_known(*(_examples_in(building, split) for split in SPLITS))
    _write_json(building / "meta.json", meta)
    shutil.rmtree(shards)
    limit_path.unlink()


def _examples_in(building: Path, split: str) -> ExampleDataset:
    """Return the examples of a split that has just been assembled."""
    names = (split, f"{split}.documents", f"{split}.answers")
    tokens, ends, answers = (np.load(building / f"{name}.npy", mmap_mode="r") for name in names)
    return ExampleDataset(tokens, ends, answers, padding=0)


def _tidy(building: Path) -> None:
    """Delete the temporary files of a killed process, and links, which may lead anywhere."""
    if building.is_symlink():
        building.unlink()
    for path in building.rglob("*"):
        if path.is_symlink() or path.name.startswith("."):
            path.unlink()


def _saved_split(building: Path) -> tuple[Split, Tokenizer] | None:
    """Return the split and the tokenizer of an interrupted preparation; None if it has none."""
    try:
        limit = json.loads((building / "limit.json").read_text(encoding="utf-8"))
        split = PositionSplit(int(limit["cut"])) if isinstance(limit, dict) else None
        return split or DocumentSplit(float(limit)), open_tokenizer(building)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _train(building: Path, data: DataConfig, config: TokenizerConfig, work: Work) -> Split:
    """Train and save the tokenizer; return the split."""
    count = partial(count_batch, pattern=config.pattern, special_tokens=())
    split, counts = survey(data, count, work)
    trained = merge_pretokens(
        counts, config.vocab_size, [END_OF_TEXT], on_progress=work.on_progress
    )
    Tokenizer(*trained, [END_OF_TEXT], config.pattern).save(building, "huggingface")
    return split


def _write_json(path: Path, value: Any) -> None:
    with replacing(path) as file:
        file.write(json.dumps(value, indent=1).encode())
