"""From documents to token ids on disk: cached, resumable, and by as many processes as there are.

A corpus is a folder of a cache, named by all that it is a function of. It is built beside its place
in steps that survive an interruption, under a lock that other processes wait for:

    survey      which documents are held out; the counts that the tokenizer is trained on
    encode      shards of about two million characters, each a file of its own
    assemble    the shards in one array per split, with checksums

K = slots in a stack, B = sequences, T = tokens.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
    place,
    shards_of,
    utf8_size,
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
    """Split, train or take the tokenizer and encode; or load all that from the cache.

    Args:
        data: where the text comes from.
        tokenizer: the tokenizer to train, or to take.
        cache_dir: where prepared corpora are kept.
        processes: that work; by default one per core, or one for a small source.
        on_progress: is told how far it is.

    Raises:
        CorpusError: if the source or the tokenizer cannot be used, or the cache cannot be written.
    """
    on_progress(Progress("reading what identifies the data", 0, None, "B"))
    check_vocab_size(tokenizer.vocab_size, [END_OF_TEXT])
    given = load_tokenizer(tokenizer)
    memo = cache_dir / _MEMO
    identity = fingerprint(data, memo)
    folder = _folder(cache_dir, data, given or tokenizer, identity)
    found = load(folder)
    if found is not None:
        return found
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _locked(cache_dir / f".{folder.name}.lock", on_progress):
            found = load(folder)  # by whoever held the lock
            if found is not None:
                return found
            building = cache_dir / f".building-{folder.name}"
            try:
                work = _Work.on(data, processes, on_progress)
                _build(building, data, given or tokenizer, identity, work)
                if fingerprint(data, memo).digest != identity.digest:
                    raise CorpusError("data: it changed while it was prepared; start again")
            except CorpusError:
                shutil.rmtree(building, ignore_errors=True)
                raise
            # Loaded before it is put in place: a mapped file stays readable whatever happens to
            # its name.
            corpus = load(building)
            assert corpus is not None
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one
            building.rename(folder)
            return corpus
    except OSError as error:
        raise CorpusError(
            f"data: cannot keep the prepared corpus in {cache_dir}: {error.strerror}; free some "
            f"space or choose another place"
        ) from error
    except BrokenExecutor as error:
        raise CorpusError(
            "data: a process that prepared it was killed, perhaps for memory; start again, and it "
            "goes on from there"
        ) from error


def cached(data: DataConfig, tokenizer: TokenizerConfig, cache_dir: Path) -> Corpus | None:
    """What `prepare` would load from the cache; None if it would have to work. Builds nothing.

    Raises:
        CorpusError: if the source or the tokenizer cannot be read.
    """
    if not cache_dir.exists():
        return None
    chosen = load_tokenizer(tokenizer) or tokenizer
    return load(_folder(cache_dir, data, chosen, fingerprint(data, cache_dir / _MEMO)))


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
        data: where the text comes from; its split does not matter.
        vocab_size: as in `bpe.train_bpe`.
        special_tokens: as in `bpe.train_bpe`; what looks like one in a document is text.
        pattern: as in `bpe.train_bpe`.
        processes: that count; by default one per core, or one for a small source.
        on_progress: is told how far it is.

    Raises:
        CorpusError: if the source cannot be read.
        ValueError: as `bpe.train_bpe`.
    """
    check_vocab_size(vocab_size, special_tokens)
    check_pattern(pattern)
    everything = -1.0  # no document stands below
    count = partial(_count_batch, pattern=pattern, special_tokens=special_tokens)
    _, counts = _count(data, everything, count, _Work.on(data, processes, on_progress))
    trained = merge_pretokens(counts, vocab_size, special_tokens, on_progress=on_progress)
    return Tokenizer(*trained, special_tokens, pattern)


def _folder(
    cache_dir: Path,
    data: DataConfig,
    tokenizer: TokenizerConfig | Tokenizer,
    identity: Fingerprint,
) -> Path:
    if isinstance(tokenizer, Tokenizer):
        chosen: Any = tokenizer.fingerprint  # wherever it lies
    else:
        chosen = tokenizer.model_dump(mode="json", exclude={"file"})
    parts = (FORMAT, identity.digest, data.validation_fraction, chosen)
    return cache_dir / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


class _Work(NamedTuple):
    """How much work there is, who does it, and who is told how far it is."""

    num_bytes: int | None
    processes: int
    on_progress: OnProgress

    @classmethod
    def on(cls, data: DataConfig, processes: int | None, on_progress: OnProgress) -> _Work:
        """Work on a source."""
        num_bytes = source_bytes(data)
        return cls(num_bytes, processes_for(num_bytes, processes), on_progress)


@contextmanager
def _locked(path: Path, on_progress: OnProgress) -> Iterator[None]:
    """Be the only one that prepares this corpus; the lock of a process that dies is free."""
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
    """Make a corpus in a folder, or go on where an interrupted process stopped."""
    shards = building / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    limit_path = building / "limit.json"
    if not limit_path.exists():
        # The limit is written last: it says that the tokenizer is complete.
        if isinstance(chosen, Tokenizer):
            limit, _ = _survey(data, _measure_batch, work)
            chosen.save(building, "huggingface")
        else:
            limit = _train(building, data, chosen, work)
        _write_json(limit_path, limit)
    limit = json.loads(limit_path.read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(building)
    pieces = shards_of(data, limit, building, shards, tokenizer.fingerprint)
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
        "bytes": sizes,
        "sha256": {
            name: sha256_of(building / name) for name in (*names, "tokenizer.json", "files.json")
        },
    }
    _write_json(building / "meta.json", meta)
    shutil.rmtree(shards)
    limit_path.unlink()


def _train(building: Path, data: DataConfig, config: TokenizerConfig, work: _Work) -> float:
    """Train the tokenizer and keep it; where the validation part ends."""
    count = partial(_count_batch, pattern=config.pattern, special_tokens=())
    limit, counts = _survey(data, count, work)
    trained = merge_pretokens(
        counts, config.vocab_size, [END_OF_TEXT], on_progress=work.on_progress
    )
    Tokenizer(*trained, [END_OF_TEXT], config.pattern).save(building, "huggingface")
    return limit


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
    temporary.replace(path)


# survey ------------------------------------------------------------------------------------


class _Survey:
    """Watches the documents of a source go by."""

    def __init__(self, data: DataConfig, limit: float) -> None:
        self._data, self._limit = data, limit
        self.lowest = 1.0
        self.train = self.held_out = 0

    def training_texts(self) -> Iterator[str]:
        """The training documents' texts."""
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


def _survey(data: DataConfig, count: _Count, work: _Work) -> tuple[float, dict[bytes, int]]:
    """Where the validation part ends, and the counts of the training part's pre-tokens."""
    survey, counts = _count(data, data.validation_fraction, count, work)
    if not survey.held_out and survey.train > 1:
        # With few documents none may fall below the fraction: the lowest one is held out.
        survey, counts = _count(data, survey.lowest, count, work)
    if survey.train + survey.held_out == 0:
        raise CorpusError(
            f"data: there are no documents, only separators ({data.separator!r}); give files "
            f"with text between them, or another separator"
        )
    noun = "pair" if data.pairs else "document"
    if survey.train + survey.held_out == 1:
        way_out = 'files, or say what separates documents (for instance separator: "\\n\\n")'
        raise CorpusError(
            f"data: the split is by {noun}, and there is only one; give several "
            f"{'pairs' if data.pairs else way_out}"
        )
    if not survey.train:
        raise CorpusError(
            f"data: every {noun} falls into the validation part; lower validation_fraction"
        )
    return max(data.validation_fraction, survey.lowest), counts


def _count(
    data: DataConfig,
    limit: float,
    count: _Count,
    work: _Work,
) -> tuple[_Survey, dict[bytes, int]]:
    survey = _Survey(data, limit)
    done = 0
    with PretokenCounts() as counts:
        batches = in_batches(survey.training_texts(), len, _COUNTED_CHARACTERS)
        for counted, num_bytes in ordered_map(count, batches, work.processes):
            counts.add(counted)
            done += num_bytes
            work.on_progress(Progress("counting", done, work.num_bytes, "B"))
        return survey, counts.most_frequent()


def _count_batch(
    texts: Sequence[str], pattern: str, special_tokens: Sequence[str]
) -> tuple[Counter[str], int]:
    """Counts of the pre-tokens of some texts, and the bytes of the texts."""
    special = special_pattern(special_tokens)
    parts = [part for text in texts for part in special.split(text)[::2]] if special else texts
    return count_pretokens(parts, pattern), sum(map(utf8_size, texts))


def _measure_batch(texts: Sequence[str]) -> tuple[Counter[str], int]:
    """As `_count_batch`, where nobody asks for the counts."""
    return Counter(), sum(map(utf8_size, texts))
