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
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from model.corpus.corpus import FORMAT, Corpus, load, sha256_of
from model.corpus.shards import (
    SPLITS,
    assemble,
    encode_shard,
    in_batches,
    shards_of,
    utf8_size,
)
from model.corpus.split import (
    DocumentSplit,
    PositionSplit,
    Split,
    is_one_document,
    place,
    position_split,
)
from model.errors import CorpusError
from model.parallel import ordered_map, processes_for
from model.progress import OnProgress, Progress, silent
from model.sources.fingerprint import Fingerprint, fingerprint
from model.sources.registry import documents, source_bytes
from model.spec.data import END_OF_TEXT, DataConfig, TokenizerConfig
from model.tokenizer.bpe import (
    PretokenCounts,
    check_pattern,
    check_vocab_size,
    count_pretokens,
    merge_pretokens,
)
from model.tokenizer.load import load_tokenizer
from model.tokenizer.pretokenizer import special_pattern
from model.tokenizer.tokenizer import Tokenizer

# Texts → pre-token counts, and the bytes of the texts.
_Count = Callable[[Sequence[str]], tuple[Counter[str], int]]

_COUNTED_CHARACTERS = 1 << 20
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
    memo = cache_dir / _MEMO
    identity = fingerprint(data, memo)
    folder = _folder(cache_dir, data, chosen, identity)
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
                work = _Work.on(data, processes, on_progress)
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


def cached(data: DataConfig, tokenizer: TokenizerConfig, cache_dir: Path) -> Corpus | None:
    """Load from the cache what `prepare` would load; return None if it would have to build.

    Raises:
        CorpusError: if the source or the tokenizer cannot be read.
    """
    if not cache_dir.exists():
        return None
    chosen = load_tokenizer(tokenizer) or tokenizer
    identity = fingerprint(data, cache_dir / _MEMO)
    return load(_folder(cache_dir, data, chosen, identity), data, tokenizer)


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
    count = partial(_count_batch, pattern=pattern, special_tokens=special_tokens)
    texts = (document.text for document in documents(data))
    counts = _count(texts, count, _Work.on(data, processes, on_progress))
    trained = merge_pretokens(counts, vocab_size, special_tokens, on_progress=on_progress)
    return Tokenizer(*trained, special_tokens, pattern)


def _folder(
    cache_dir: Path,
    data: DataConfig,
    tokenizer: TokenizerConfig | Tokenizer,
    identity: Fingerprint,
) -> Path:
    """Path of a corpus in the cache."""
    if isinstance(tokenizer, Tokenizer):
        chosen: Any = tokenizer.fingerprint  # the path of its file does not count
    else:
        chosen = tokenizer.model_dump(mode="json", exclude={"file"})
    parts = [FORMAT, identity.digest, data.validation_fraction, chosen]
    if data.split_by is not None:  # left to the documents, the split follows from the digest
        parts.append(data.split_by)
    return cache_dir / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


class _Work(NamedTuple):
    """Size of the source, number of processes, and the progress callback."""

    num_bytes: int | None
    processes: int
    on_progress: OnProgress

    @classmethod
    def on(cls, data: DataConfig, processes: int | None, on_progress: OnProgress) -> _Work:
        """Measure a source and choose the number of processes."""
        num_bytes = source_bytes(data)
        return cls(num_bytes, processes_for(num_bytes, processes), on_progress)


@contextmanager
def _locked(path: Path, on_progress: OnProgress) -> Iterator[None]:
    """Hold the lock of a corpus, so that one process prepares it and others wait.

    The operating system releases the lock of a process that dies.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress(Progress("waiting for another process to prepare it", 0, None, "B"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(
    building: Path,
    data: DataConfig,
    chosen: TokenizerConfig | Tokenizer,
    identity: Fingerprint,
    work: _Work,
) -> None:
    """Build a corpus in a folder, or resume where an interrupted process stopped."""
    shards = building / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    limit_path = building / "limit.json"
    if not limit_path.exists():
        # Written after the tokenizer: if the limit exists, the tokenizer is complete.
        if isinstance(chosen, Tokenizer):
            split, _ = _survey(data, _measure_batch, work)
            chosen.save(building, "huggingface")
        else:
            split = _train(building, data, chosen, work)
        _write_json(
            limit_path, {"cut": split.cut} if isinstance(split, PositionSplit) else split[0]
        )
    limit = json.loads(limit_path.read_text(encoding="utf-8"))
    split = PositionSplit(**limit) if isinstance(limit, dict) else DocumentSplit(limit)
    tokenizer = Tokenizer.from_file(building)
    pieces = shards_of(data, split, building, shards, tokenizer.fingerprint)
    count = done = 0
    for num_bytes in ordered_map(encode_shard, pieces, work.processes):
        count, done = count + 1, done + num_bytes
        work.on_progress(Progress("encoding", done, work.num_bytes, "B"))
    work.on_progress(Progress("assembling", 0, None, "B"))
    paths = [shards / f"{number:06}.npz" for number in range(count)]
    sizes = {split: assemble(building, split, paths, tokenizer) for split in SPLITS}
    _write_json(building / "files.json", identity.files)
    names = [f"{split}{kind}.npy" for split in SPLITS for kind in ("", ".documents")]
    meta = {
        "format": FORMAT,
        "data_fingerprint": identity.digest,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "has_pairs": data.pairs,
        "split_by": "position" if isinstance(split, PositionSplit) else "document",
        "bytes": sizes,
        "sha256": {
            name: sha256_of(building / name) for name in (*names, "tokenizer.json", "files.json")
        },
    }
    _write_json(building / "meta.json", meta)
    shutil.rmtree(shards)
    limit_path.unlink()


def _train(building: Path, data: DataConfig, config: TokenizerConfig, work: _Work) -> Split:
    """Train and save the tokenizer; return the split."""
    count = partial(_count_batch, pattern=config.pattern, special_tokens=())
    split, counts = _survey(data, count, work)
    trained = merge_pretokens(
        counts, config.vocab_size, [END_OF_TEXT], on_progress=work.on_progress
    )
    Tokenizer(*trained, [END_OF_TEXT], config.pattern).save(building, "huggingface")
    return split


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
    temporary.replace(path)


# survey ------------------------------------------------------------------------------------


class _Survey:
    """Counts the documents of a source on both sides of the split limit, as they are read.

    Attributes:
        lowest: smallest place of any document.
        train: number of training documents.
        held_out: number of validation documents.
    """

    def __init__(self, data: DataConfig, split: DocumentSplit) -> None:
        self._data, self._limit = data, split.limit
        self.lowest = 1.0
        self.train = self.held_out = 0

    def training_texts(self) -> Iterator[str]:
        """Yield the texts of the training documents."""
        previous = None
        for document in documents(self._data):
            where = place(document.name)
            if document.name != previous:
                previous = document.name
                self.lowest = min(self.lowest, where)
                self.train += where > self._limit
                self.held_out += where <= self._limit
            if where > self._limit:
                yield document.text


def _survey(data: DataConfig, count: _Count, work: _Work) -> tuple[Split, dict[bytes, int]]:
    """Return the split of a source and the pre-token counts of its training part."""
    if data.split_by == "position" or (_may_be_one_text(data) and is_one_document(data)):
        split = position_split(data)
        parts = split.parts(documents(data))
        return split, _count((each.text for part, each in parts if part == "train"), count, work)
    return _survey_documents(data, count, work)


def _may_be_one_text(data: DataConfig) -> bool:
    """Return True if a single document shall be split by position.

    Not with a separator of the user's own, which was meant to occur.
    """
    separator = DataConfig.model_fields["separator"].default
    return bool(
        data.files and not data.pairs and data.split_by is None and data.separator == separator
    )


def _survey_documents(
    data: DataConfig, count: _Count, work: _Work
) -> tuple[DocumentSplit, dict[bytes, int]]:
    """Return the split by document and the pre-token counts of the training documents.

    Raises:
        CorpusError: if one of the parts would have no document.
    """
    split = DocumentSplit(data.validation_fraction)
    survey = _Survey(data, split)
    counts = _count(survey.training_texts(), count, work)
    if not survey.held_out and survey.train > 1:
        # Of few documents, none may lie below the fraction: then the lowest one is held out.
        split = DocumentSplit(survey.lowest)
        survey = _Survey(data, split)
        counts = _count(survey.training_texts(), count, work)
    if survey.train + survey.held_out == 0:
        raise CorpusError(
            f"data: there are no documents, only separators ({data.separator!r}); give files "
            f"with text between them, or another separator"
        )
    noun = "pair" if data.pairs else "document"
    if survey.train + survey.held_out == 1:
        files = 'files, another separator (for instance separator: "\\n\\n"), or split_by: position'
        raise CorpusError(
            f"data: the split is by {noun}, and there is only one; give several "
            f"{'pairs' if data.pairs else files}"
        )
    if not survey.train:
        position = "" if data.pairs else ", or set split_by: position"
        raise CorpusError(
            f"data: every {noun} falls into the validation part; lower validation_fraction"
            f"{position}"
        )
    return split, counts


def _count(texts: Iterable[str], count: _Count, work: _Work) -> dict[bytes, int]:
    """Count the pre-tokens of some texts."""
    done = 0
    with PretokenCounts() as counts:
        for counted, num_bytes in ordered_map(
            count, in_batches(texts, len, _COUNTED_CHARACTERS), work.processes
        ):
            counts.add(counted)
            done += num_bytes
            work.on_progress(Progress("counting", done, work.num_bytes, "B"))
        return counts.most_frequent()


def _count_batch(
    texts: Sequence[str], pattern: str, special_tokens: Sequence[str]
) -> tuple[Counter[str], int]:
    """Return the pre-token counts of some texts, and the bytes of the texts."""
    special = special_pattern(special_tokens)
    parts = [part for text in texts for part in special.split(text)[::2]] if special else texts
    return count_pretokens(parts, pattern), sum(map(utf8_size, texts))


def _measure_batch(texts: Sequence[str]) -> tuple[Counter[str], int]:
    """Return the bytes of some texts without counts: a given tokenizer needs no training."""
    return Counter(), sum(map(utf8_size, texts))
