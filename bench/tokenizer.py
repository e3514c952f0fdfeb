"""Speed of our tokenizer in training and encoding, beside tokenizers, tiktoken and rustbpe.

    python bench/tokenizer.py                     both corpora, five rounds, about 15 minutes
    python bench/tokenizer.py --quick             one round on little prose, as a test of the bench
    python bench/tokenizer.py --out FILE.json --plot FILE.png

Every number comes from a fresh process, and the sides alternate, so that neither a warm cache nor a
busy minute of the machine favours one side. Imports and the construction of an encoder are not
timed. With two processes of ours, training includes their start; encoding does not, but includes
sending texts and ids between processes. Text is encoded document by document, twice: the first time
with empty caches. All encoders have the same vocabulary and must return the same ids, or the bench
fails; rustbpe cannot load one, and only trains.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from importlib import metadata
from pathlib import Path
from typing import Any

from parts.measuring import about, add_options, finish
from parts.tokenizer.corpora import END, prose, stdlib
from parts.tokenizer.sides import Job, encode_jobs, run, train_jobs
from parts.tokenizer.tables import plot, result_of, summary

from model.tokenizer.bpe import train_bpe
from model.tokenizer.tokenizer import Tokenizer

PACKAGES = ("tokenizers", "tiktoken", "rustbpe")
CORPORA = {"stdlib": stdlib, "prose": prose}


def rounds(jobs: list[Job], num_rounds: int, corpus: str, num_bytes: int) -> list[dict[str, Any]]:
    """Measure all jobs in alternation, and summarize them: a row per job and pass.

    Raises:
        SystemExit: if two sides return different ids.
    """
    jobs = [job for job in jobs if job.package == "ours" or version(job.package)]
    results = defaultdict[Job, list[dict[str, Any]]](list)
    for number in range(num_rounds):
        for job in jobs:
            if sys.stderr.isatty():
                print(f"\r{corpus}: round {number + 1}, {job.name}\x1b[K", end="", file=sys.stderr)
            results[job].append(run(job))
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    check(results)
    return summary(results, corpus, num_bytes)


def check(results: dict[Job, list[dict[str, Any]]]) -> None:
    """Stop if ids differ between sides, or our vocabulary between numbers of processes."""
    digests = {job.name: {r["digest"] for r in found} for job, found in results.items()}
    expected = next(digests[job.name] for job in results if job.side == "ours")
    for job, found in results.items():
        if digests[job.name] not in ({""}, expected) or len(expected) != 1:
            raise SystemExit(f"{job.name} and ours ×1 made different ids of {job.text}")
        if job.part == "train" and {result["size"] for result in found} != {job.vocab}:
            raise SystemExit(f"{job.name} made {found[0]['size']} ids, not {job.vocab}")


def version(package: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def options_of() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--vocab", type=int, help="ids to train (4096)")
    parser.add_argument("--encode-vocab", type=int, help="ids to encode with (10000)")
    parser.add_argument("--rounds", type=int, help="measurements of each number (5)")
    add_options(parser, "little text, once")
    options = parser.parse_args()
    defaults = (400, 600, 1) if options.quick else (4096, 10_000, 5)
    for name, value in zip(("vocab", "encode_vocab", "rounds"), defaults, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def main() -> int:
    """Measure, check and print."""
    options = options_of()
    numbers: dict[str, Any] = {
        "vocab": {"train": options.vocab, "encode": options.encode_vocab},
        "corpora": {},
        "rows": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for corpus, make in CORPORA.items() if not options.quick else [("prose", prose)]:
            what, texts = make(options.quick)
            text = Path(folder, f"{corpus}.txt")
            text.write_text(END.join(texts), "utf-8", newline="")
            size = text.stat().st_size
            numbers["corpora"][corpus] = {"what": what, "bytes": size, "documents": len(texts)}
            vocabulary = Path(folder, corpus)
            vocab, merges = train_bpe(text, options.encode_vocab, [END])
            Tokenizer(vocab, merges, [END]).save(vocabulary, "huggingface")
            for jobs in (
                train_jobs(str(text), options.vocab),
                encode_jobs(str(text), options.encode_vocab, str(vocabulary)),
            ):
                numbers["rows"] += rounds(jobs, options.rounds, corpus, size)
    packages = [name for name in ("numpy", "regex", *PACKAGES) if version(name)]
    finish(result_of(numbers, about(packages, rehearsal=options.quick)), options, plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
