"""Sides of tokenizer.py: trainers and encoders, and a measurement in a process of its own.

A trainer or encoder is a function that prepares and returns a function; only the latter is timed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from model.parallel import ordered_map
from model.tokenizer.bpe import train_bpe
from model.tokenizer.pretokenizer import PATTERNS
from model.tokenizer.tokenizer import Tokenizer
from parts.measuring import module_command
from parts.tokenizer.corpora import END

PATTERN = PATTERNS["gpt2"].source
BATCH_CHARACTERS = 1 << 17  # of documents sent to another process at a time


@dataclass(frozen=True)
class Job:
    """One measurement.

    Attributes:
        part: train or encode.
        side: a key of `TRAINERS` or `ENCODERS`.
        workers: number of processes (ours) or threads (others).
        output: form of an encoded document: a list of ints, or an array.
        text: path of the corpus.
        vocab: number of ids.
        folder: path of the vocabulary to encode with.
    """

    part: str
    side: str
    workers: int
    output: str
    text: str
    vocab: int
    folder: str

    @property
    def package(self) -> str:
        """Package of the side."""
        return self.side.split()[0]

    @property
    def name(self) -> str:
        """Name of the row in the table."""
        return f"{self.side} ×{self.workers}" + (f", {self.output}" if self.output else "")


def read_documents(job: Job) -> list[str]:
    """Read the corpus; part of the time of training, because ours reads the file itself."""
    return Path(job.text).read_text("utf-8").split(END)


def train_ours(job: Job) -> Callable[[], Any]:
    """Prepare `train_bpe`."""
    return lambda: train_bpe(job.text, job.vocab, [END], processes=job.workers)


def train_tokenizers(job: Job) -> Callable[[], Any]:
    """Prepare BPE with ByteLevel; its trainer breaks ties differently."""
    from tokenizers import Tokenizer as Theirs
    from tokenizers import models, pre_tokenizers, trainers

    def work() -> int:
        tokenizer = Theirs(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=job.vocab,
            special_tokens=[END],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        tokenizer.train_from_iterator(read_documents(job), trainer)
        return int(tokenizer.get_vocab_size())

    return work


def train_rustbpe(job: Job) -> Callable[[], Any]:
    """Prepare rustbpe, which has no special tokens: it trains one id less."""
    import rustbpe

    def work() -> int:
        tokenizer = rustbpe.Tokenizer()
        tokenizer.train_from_iterator(iter(read_documents(job)), job.vocab - 1, pattern=PATTERN)
        return int(tokenizer.vocab_size) + 1

    return work


def trained(job: Job, result: Any) -> tuple[int, str]:
    """Return the number of ids with the special token, and a digest of our vocabulary."""
    if job.side == "ours":
        vocab, merges = result
        return len(vocab), hashlib.sha256(repr((vocab, merges)).encode()).hexdigest()
    return result, ""


@lru_cache(maxsize=1)
def our_tokenizer(folder: str) -> Tokenizer:
    """Return a tokenizer with a compiled pattern and an empty cache; one per process."""
    tokenizer = Tokenizer.from_file(folder)
    tokenizer.encode("")
    return tokenizer


def encode_batch(folder: str, texts: Sequence[str]) -> list[Any]:
    """Return the ids of documents, in another process."""
    return list(map(our_tokenizer(folder).encode_numpy, texts))


def started(folder: str, seconds: float) -> int:
    """Prepare a process, and keep it busy so that the other processes start as well."""
    our_tokenizer(folder)
    time.sleep(seconds)
    return os.getpid()


def encode_ours(job: Job, texts: list[str]) -> Callable[[], list[Any]]:
    """Prepare `encode` or `encode_numpy`; with two processes, batches through `ordered_map`."""
    if job.workers == 1:
        tokenizer = our_tokenizer(job.folder)
        encode = tokenizer.encode if job.output == "lists" else tokenizer.encode_numpy
        return lambda: list(map(encode, texts))
    seconds = 0.1
    while len(set(ordered_map(partial(started, job.folder), [seconds] * 4, job.workers))) < 2:
        seconds *= 2
    function = partial(encode_batch, job.folder)

    def work() -> list[Any]:
        found = ordered_map(function, _batches(texts), job.workers)
        arrays = [ids for batch in found for ids in batch]
        return arrays if job.output == "arrays" else [ids.tolist() for ids in arrays]

    return work


def _batches(texts: list[str]) -> Iterator[list[str]]:
    batch, size = list[str](), 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    yield batch


def encode_tokenizers(job: Job, texts: list[str]) -> Callable[[], list[Any]]:
    """Prepare `encode_batch_fast`, its fastest way, which leaves the offsets out."""
    from tokenizers import Tokenizer as Theirs

    tokenizer = Theirs.from_file(str(Path(job.folder, "tokenizer.json")))
    return lambda: [each.ids for each in tokenizer.encode_batch_fast(texts)]


def encode_tiktoken(job: Job, texts: list[str]) -> Callable[[], list[Any]]:
    """Prepare `encode_ordinary`, its batch with threads, or `encode_to_numpy`."""
    import tiktoken

    ours = our_tokenizer(job.folder)
    (end,) = (i for i, token in ours.vocab.items() if token == END.encode())
    ranks = {token: i for i, token in ours.vocab.items() if i != end}
    encoding = tiktoken.Encoding(
        "ours", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={END: end}
    )
    if job.output == "arrays":
        encode = partial(encoding.encode_to_numpy, disallowed_special=())
        if job.workers > 1:
            threads = ThreadPoolExecutor(job.workers)  # as its batch of lists does
            return lambda: list(threads.map(encode, texts))
        return lambda: list(map(encode, texts))
    if job.workers > 1:
        return lambda: encoding.encode_ordinary_batch(texts, num_threads=job.workers)
    return lambda: list(map(encoding.encode_ordinary, texts))


TRAINERS = {"ours": train_ours, "tokenizers": train_tokenizers, "rustbpe": train_rustbpe}
ENCODERS = {
    "ours": encode_ours,
    "tokenizers fast": encode_tokenizers,
    "tiktoken": encode_tiktoken,
}


def train_jobs(text: str, vocab: int) -> list[Job]:
    """Return the jobs of training."""
    return [
        Job("train", side, workers, "", text, vocab, "") for workers in (1, 2) for side in TRAINERS
    ]


def encode_jobs(text: str, vocab: int, folder: str) -> list[Job]:
    """Return the jobs of encoding; only ours and tiktoken return arrays."""
    return [
        Job("encode", side, workers, output, text, vocab, folder)
        for output in ("lists", "arrays")
        for workers in (1, 2)
        for side in ENCODERS
        if output == "lists" or side in {"ours", "tiktoken"}
    ]


def measure(job: Job) -> dict[str, Any]:
    """Do a job in this process; return seconds of each pass, size and digest of the result."""
    if job.part == "train":
        work = TRAINERS[job.side](job)
        began = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - began
        size, digest = trained(job, result)
        return {"seconds": [seconds], "size": size, "digest": digest}
    texts = read_documents(job)
    work = ENCODERS[job.side](job, texts)
    seconds_of = []
    for _ in range(2):
        began = time.perf_counter()
        result = work()
        seconds_of.append(time.perf_counter() - began)
    digest = hashlib.sha256()
    for ids in result:
        digest.update(np.asarray([len(ids)], np.uint32).tobytes())
        digest.update(np.asarray(ids, np.uint32).tobytes())
    return {
        "seconds": seconds_of,
        "size": sum(map(len, result)),
        "digest": digest.hexdigest(),
    }


def run(job: Job) -> dict[str, Any]:
    """Run `measure` in a fresh process, with the number of threads of the job."""
    command, environment = module_command("parts.tokenizer.one_job", json.dumps(asdict(job)))
    environment |= {"RAYON_NUM_THREADS": str(job.workers), "TOKENIZERS_PARALLELISM": "true"}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        raise SystemExit(f"{job.name} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
