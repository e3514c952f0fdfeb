"""How fast our tokenizer trains and encodes, beside tokenizers, tiktoken and rustbpe.

    python bench/tokenizer.py                     both corpora, five rounds, about 15 minutes
    python bench/tokenizer.py --quick             one round on little prose: does this still work?
    python bench/tokenizer.py --prose FILE        a text of one's own instead of docstrings
    python bench/tokenizer.py --out FILE.json --plot FILE.png --markdown

Every number comes from a fresh process, the sides by turns, so that neither a warm cache nor a
busy minute of the machine favours one. Imports and the making of an encoder are not timed. Of our
two processes, training is timed with their start and encoding without it, but with the texts sent
there and the ids sent back. Text is encoded document by document, twice: the first time the
caches are empty. All encoders are given the same vocabulary, except rustbpe, which can load none
and trains its own; the others must find the same ids, or the bench fails.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.util
import inspect
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path
from pydoc_data import topics
from statistics import median
from typing import Any

import numpy as np

from model.bpe import train_bpe
from model.data_config import DataConfig
from model.pretokens import PATTERNS
from model.processes import ordered_map
from model.sources import documents
from model.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[1]

END = "<|endoftext|>"
PATTERN = PATTERNS["gpt2"].source
PACKAGES = ("tokenizers", "tiktoken", "rustbpe")
DOCSTRINGS_OF = ("numpy", "ray", "mlflow", "optuna", "pydantic")  # which tuner depends on
DOCUMENT_CHARACTERS = 20_000  # of a prose file without separators
BATCH_CHARACTERS = 1 << 17  # of documents sent to another process at a time
QUICK_CHARACTERS = 300_000


@dataclass(frozen=True)
class Job:
    """One measurement.

    Attributes:
        part: train or encode.
        side: whose work it is, a key of `TRAINERS` or `ENCODERS`.
        workers: processes of ours, threads of the others.
        output: what encoding makes of a document: a list of ints, or an array.
        text: the corpus.
        vocab: ids.
        folder: the vocabulary to encode with.
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
        """What must be installed."""
        return self.side.split()[0]

    @property
    def name(self) -> str:
        """The row of the table."""
        return f"{self.side} ×{self.workers}" + (f", {self.output}" if self.output else "")


# The corpora


def stdlib(is_quick: bool) -> tuple[str, list[str]]:
    """The default corpus of a search."""
    found = (document.text for document in documents(DataConfig()))
    return "source text of Python's standard library", _some(found, is_quick)


def prose(is_quick: bool) -> tuple[str, list[str]]:
    """English paragraphs out of documentation that is on every machine with tuner."""
    manual = ([text] for _, text in sorted(topics.topics.items()))
    if is_quick:
        return "sentences of Python's manual (pydoc_data)", _some(_paragraphs(manual), True)
    sources = [document.text for document in documents(DataConfig())]
    for name in DOCSTRINGS_OF:
        spec = importlib.util.find_spec(name)
        if spec and spec.origin:
            files = sorted(Path(spec.origin).parent.rglob("*.py"))
            sources += [file.read_text("utf-8", errors="replace") for file in files]
    texts = _paragraphs([*manual, *map(_docstrings, sources)])
    what = "sentences of Python's manual and of the docstrings of its standard library and of "
    return what + ", ".join(DOCSTRINGS_OF), list(texts)


def prose_of(path: Path, is_quick: bool) -> tuple[str, list[str]]:
    """A text file, in documents: what its separators make of it, the long ones cut at lines."""

    def cut() -> Iterator[str]:
        for document in path.read_text("utf-8").split(END):
            held = ""
            for line in document.splitlines(keepends=True):
                held += line
                if len(held) >= DOCUMENT_CHARACTERS:
                    yield held
                    held = ""
            if held:
                yield held

    return path.name, _some(cut(), is_quick)


def _some(texts: Iterable[str], is_quick: bool) -> list[str]:
    found, size = list[str](), 0
    for text in texts:
        found.append(text.replace(END, ""))  # the standard library's tests may say anything
        size += len(text)
        if is_quick and size > QUICK_CHARACTERS:
            break
    return found


def _docstrings(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return  # tests of the parser
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def _paragraphs(groups: Iterable[Iterable[str]]) -> Iterator[str]:
    """A document per group: its paragraphs that are sentences, each once and on one line."""
    seen = set()
    for texts in groups:
        kept = []
        for text in texts:
            for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
                line = " ".join(paragraph.split())
                letters = sum(map(str.isalpha, line)) + line.count(" ")
                if len(line) >= 100 and letters >= 0.92 * len(line) and line not in seen:
                    seen.add(line)
                    kept.append(line)
        if kept:
            yield "\n\n".join(kept)


# What is measured, in a process of its own: functions that get ready and return the work


def read_documents(job: Job) -> list[str]:
    """The corpus; training is timed with this, as ours reads the file itself."""
    return Path(job.text).read_text("utf-8").split(END)


def train_ours(job: Job) -> Callable[[], Any]:
    """`train_bpe`."""
    return lambda: train_bpe(job.text, job.vocab, [END], processes=job.workers)


def train_tokenizers(job: Job) -> Callable[[], Any]:
    """BPE with ByteLevel; its trainer breaks ties in another way."""
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
    """Knows no special tokens, so that one id less is made."""
    import rustbpe

    def work() -> Any:
        tokenizer = rustbpe.Tokenizer()
        tokenizer.train_from_iterator(iter(read_documents(job)), job.vocab - 1, pattern=PATTERN)
        return tokenizer

    return work


def trained(job: Job, result: Any) -> tuple[int, str]:
    """Number of ids, special token included, and a digest of the vocabulary if it is ours."""
    if job.side == "ours":
        vocab, merges = result
        return len(vocab), hashlib.sha256(repr((vocab, merges)).encode()).hexdigest()
    return (result if isinstance(result, int) else result.vocab_size + 1), ""


@lru_cache(maxsize=1)
def our_tokenizer(folder: str) -> Tokenizer:
    """One per process, its pattern compiled, its cache empty."""
    tokenizer = Tokenizer.from_file(folder)
    tokenizer.encode("")
    return tokenizer


def encode_batch(folder: str, texts: Sequence[str]) -> list[Any]:
    """Ids of some documents, in another process."""
    return list(map(our_tokenizer(folder).encode_numpy, texts))


def started(folder: str, seconds: float) -> int:
    """Get a process ready, for so long that the others get their turn."""
    our_tokenizer(folder)
    time.sleep(seconds)
    return os.getpid()


def encode_ours(job: Job, texts: list[str]) -> Callable[[], list[Any]]:
    """`Tokenizer.encode` and `encode_numpy`; with two processes, batches through `ordered_map`."""
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
    """`encode` and `encode_batch`; `encode_batch_fast`, which leaves the offsets out."""
    from tokenizers import Tokenizer as Theirs

    tokenizer = Theirs.from_file(str(Path(job.folder, "tokenizer.json")))
    if job.side.endswith("fast"):
        return lambda: [each.ids for each in tokenizer.encode_batch_fast(texts)]
    if job.workers > 1:
        return lambda: [each.ids for each in tokenizer.encode_batch(texts)]
    return lambda: [tokenizer.encode(text).ids for text in texts]


def encode_tiktoken(job: Job, texts: list[str]) -> Callable[[], list[Any]]:
    """`encode_ordinary`, its batch with threads, and `encode_to_numpy`."""
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


def encode_rustbpe(job: Job, texts: list[str]) -> Callable[[], list[Any]]:
    """`encode` and `batch_encode`, with its own vocabulary."""
    tokenizer = train_rustbpe(job)()
    if job.workers > 1:
        return lambda: tokenizer.batch_encode(texts)
    return lambda: list(map(tokenizer.encode, texts))


TRAINERS = {"ours": train_ours, "tokenizers": train_tokenizers, "rustbpe": train_rustbpe}
ENCODERS = {
    "ours": encode_ours,
    "tokenizers": encode_tokenizers,
    "tokenizers fast": encode_tokenizers,
    "tiktoken": encode_tiktoken,
    "rustbpe": encode_rustbpe,
}


def encode_jobs(text: str, vocab: int, folder: str) -> list[Job]:
    """All ways to encode: the ones that make arrays are ours and tiktoken's."""
    return [
        Job("encode", side, workers, output, text, vocab, folder)
        for output in ("lists", "arrays")
        for workers in (1, 2)
        for side in ENCODERS
        if output == "lists" or side in {"ours", "tiktoken"}
    ]


def measure(job: Job) -> dict[str, Any]:
    """Do the work in this process: the seconds of each pass, and what came out."""
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
        "digest": digest.hexdigest() if job.side != "rustbpe" else "",
    }


def run(job: Job) -> dict[str, Any]:
    """`measure` in a fresh process, with the threads that the job is about."""
    # Not as __main__: the processes that it starts find its functions by their module's name.
    code = "import sys; from bench import tokenizer; tokenizer.main_of_job(sys.argv[1])"
    environment = os.environ | {
        "RAYON_NUM_THREADS": str(job.workers),
        "TOKENIZERS_PARALLELISM": "true",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(asdict(job))],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
    )
    if done.returncode:
        raise SystemExit(f"{job.name} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main_of_job(text: str) -> None:
    """What the fresh process does."""
    print(json.dumps(measure(Job(**json.loads(text)))))


# Rounds, tables, pictures


def rounds(jobs: list[Job], num_rounds: int, corpus: str, num_bytes: int) -> list[dict[str, Any]]:
    """Measure all jobs by turns and summarize: a row per job and pass.

    Raises:
        SystemExit: if two sides disagree about what must be the same.
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
    rows = []
    for job, measured in results.items():
        passes = ("first pass", "second pass") if job.part == "encode" else ("",)
        for number, name in enumerate(passes):
            seconds = [result["seconds"][number] for result in measured]
            rows.append(
                {
                    "part": job.part,
                    "corpus": corpus,
                    "side": job.side,
                    "workers": job.workers,
                    "output": job.output,
                    "pass": name,
                    "name": job.name,
                    "seconds": median(seconds),
                    "seconds_min": min(seconds),
                    "seconds_max": max(seconds),
                    "megabytes_per_second": num_bytes / 1e6 / median(seconds),
                }
            )
    for row in rows:
        ours = pick(rows, side="ours", **{key: row[key] for key in ("workers", "output", "pass")})
        row["speed_of_ours"] = row["seconds"] / ours["seconds"]
    return rows


def check(results: dict[Job, list[dict[str, Any]]]) -> None:
    """Stop if ids differ between sides, or our training between numbers of processes."""
    digests = {job.name: {r["digest"] for r in found} for job, found in results.items()}
    expected = next(digests[job.name] for job in results if job.side == "ours")
    for job, found in results.items():
        if digests[job.name] not in ({""}, expected) or len(expected) != 1:
            raise SystemExit(f"{job.name} and ours ×1 made different ids of {job.text}")
        if job.part == "train" and {result["size"] for result in found} != {job.vocab}:
            raise SystemExit(f"{job.name} made {found[0]['size']} ids, not {job.vocab}")


def pick(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    """The fastest row with some attributes; empty if there is none."""
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return min(found, key=lambda row: row["seconds"], default={})


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What ours is to reach, as a multiple of another's speed in the faster of its ways."""
    passes = ("first pass", "second pass")
    wanted = [
        ("train", "tokenizers", 1, "", "", 1.5),
        ("train", "tokenizers", 2, "", "", 1.0),
        *(("encode", "tokenizers", n, "lists", each, 4.0) for n in (1, 2) for each in passes),
        *(("encode", "tiktoken", n, "lists", each, 0.8) for n in (1, 2) for each in passes),
        *(("encode", "tiktoken", n, "arrays", each, 0.8) for n in (1, 2) for each in passes),
    ]
    found = []
    for corpus in dict.fromkeys(row["corpus"] for row in rows):
        for part, package, workers, output, name, least in wanted:
            key = {"part": part, "corpus": corpus, "workers": workers, "output": output}
            key["pass"] = name
            theirs = [row for row in rows if row["side"].split()[0] == package]
            if best := pick(theirs, **key):
                reached = best["speed_of_ours"]
                found.append(
                    {"name": best["name"], **key, "least": least, "reached": reached}
                    | {"met": reached >= least}
                )
    return found


HEADINGS = ("MB/s", "seconds", "min – max", "ours is")


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One row of a table."""
    return (
        f"{row['megabytes_per_second']:.2f}",
        f"{row['seconds']:.3f}",
        f"{row['seconds_min']:.3f} – {row['seconds_max']:.3f}",
        f"{row['speed_of_ours']:.2f}×",
    )


def print_tables(report: dict[str, Any], is_markdown: bool) -> None:
    """A table per part and corpus, and the goals."""
    for title, rows in tables(report):
        print(f"\n{'### ' if is_markdown else ''}{title}\n")
        labels = [f"{row['name']} {row['pass']}".strip() for row in rows]
        if is_markdown:
            print(f"| | {' | '.join(HEADINGS)} |\n|---|{'---:|' * len(HEADINGS)}")
            for label, row in zip(labels, rows, strict=True):
                print(f"| {label} | {' | '.join(cells(row))} |")
        else:
            layout = "{:42}{:>9}{:>10}{:>18}{:>10}"
            print(layout.format("", *HEADINGS))
            for label, row in zip(labels, rows, strict=True):
                print(layout.format(label, *cells(row)))
    print(f"\n{'### ' if is_markdown else ''}Goals: ours is at least so many times as fast\n")
    for goal in report["goals"]:
        what = f"{goal['part']}, {goal['corpus']}, {goal['name']} {goal['pass']}".strip()
        verdict = "met" if goal["met"] else "missed"
        start = "- " if is_markdown else ""
        print(f"{start}{what}: {goal['least']} wanted, {goal['reached']:.3f} reached, {verdict}")


def tables(report: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The rows by part and corpus, each with a title."""
    for part in ("train", "encode"):
        for corpus, about in report["corpora"].items():
            rows = [row for row in report["rows"] if (row["part"], row["corpus"]) == (part, corpus)]
            size = f"{about['bytes'] / 1e6:.1f} MB, vocabulary {report['vocab'][part]:,}"
            yield f"{part}: {corpus}, {size}", rows


def plot(report: dict[str, Any], path: Path) -> None:
    """Bars of MB/s with their spread, ours in colour."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = list(tables(report))
    heights = [max(len(rows) for title, rows in panels if title.startswith(p)) for p in "te"]
    figure, axes = plt.subplots(
        2,
        len(report["corpora"]),
        figsize=(7.5 * len(report["corpora"]), 0.25 * sum(heights) + 2.5),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis, (title, rows) in zip(axes.flat, panels, strict=True):
        speeds = [row["megabytes_per_second"] for row in rows]
        fastest = [
            s * row["seconds"] / row["seconds_min"] for s, row in zip(speeds, rows, strict=True)
        ]
        slowest = [
            s * row["seconds"] / row["seconds_max"] for s, row in zip(speeds, rows, strict=True)
        ]
        spread = [
            [speed - slow for speed, slow in zip(speeds, slowest, strict=True)],
            [fast - speed for speed, fast in zip(speeds, fastest, strict=True)],
        ]
        axis.barh(
            [f"{row['name']} {row['pass']}".strip() for row in rows],
            speeds,
            xerr=spread,
            color=["#d1495b" if row["side"] == "ours" else "#8d99ae" for row in rows],
            error_kw={"elinewidth": 1, "capsize": 2},
        )
        axis.invert_yaxis()
        axis.margins(y=0.01)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("MB/s (median, min – max)", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def version(package: str) -> str | None:
    """Of an installed package; None if it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def device() -> dict[str, Any]:
    """What the numbers were measured on."""
    cpu = platform.processor()
    if (info := Path("/proc/cpuinfo")).exists():
        names = re.findall(r"model name\s*: (.*)", info.read_text())
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def options_of() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prose", type=Path, metavar="FILE", help="a UTF-8 text of one's own")
    parser.add_argument("--vocab", type=int, help="ids to train (4096)")
    parser.add_argument("--encode-vocab", type=int, help="ids to encode with (10000)")
    parser.add_argument("--rounds", type=int, help="measurements of each number (5)")
    parser.add_argument("--quick", action="store_true", help="little text, once")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--plot", type=Path, help="draw them as PNG")
    parser.add_argument("--markdown", action="store_true", help="print tables for a document")
    options = parser.parse_args()
    defaults = (400, 600, 1) if options.quick else (4096, 10_000, 5)
    for name, value in zip(("vocab", "encode_vocab", "rounds"), defaults, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def main() -> int:
    """Measure, check, print."""
    options = options_of()
    versions = {package: version(package) for package in ("numpy", "regex", *PACKAGES)}
    report: dict[str, Any] = {
        "device": device(),
        "versions": versions,
        "vocab": {"train": options.vocab, "encode": options.encode_vocab},
        "rounds": options.rounds,
        "corpora": {},
        "rows": [],
    }
    print(*(f"{name} {value}" for name, value in report["device"].items()), sep=", ")
    print(*(f"{name} {value or 'not installed'}" for name, value in versions.items()), sep=", ")
    made = {"stdlib": stdlib, "prose": partial(prose_of, options.prose) if options.prose else prose}
    if options.quick:
        made.pop("stdlib")
    with tempfile.TemporaryDirectory() as folder:
        for corpus, make in made.items():
            what, texts = make(options.quick)
            text = Path(folder, f"{corpus}.txt")
            text.write_text(END.join(texts), "utf-8", newline="")
            size = text.stat().st_size
            print(f"{corpus}: {what}; {size / 1e6:.2f} MB, {len(texts)} documents")
            report["corpora"][corpus] = {"what": what, "bytes": size, "documents": len(texts)}
            vocabulary = Path(folder, corpus)
            vocab, merges = train_bpe(text, options.encode_vocab, [END])
            Tokenizer(vocab, merges, [END]).save(vocabulary, "huggingface")
            jobs = [
                Job("train", side, workers, "", str(text), options.vocab, "")
                for workers in (1, 2)
                for side in TRAINERS
            ]
            report["rows"] += rounds(jobs, options.rounds, corpus, size)
            jobs = encode_jobs(str(text), options.encode_vocab, str(vocabulary))
            report["rows"] += rounds(jobs, options.rounds, corpus, size)
    report |= {"goals": goals(report["rows"]), "ids_equal": True}  # or it would have stopped
    report["device"]["load_at_the_end"] = os.getloadavg()[0]
    print_tables(report, options.markdown)
    if options.quick:
        print("\n(so little text says nothing about the goals)")
    print(
        "\nids are the same on all sides with our vocabulary, and training with 1 and 2 processes"
    )
    if options.out:
        options.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
    if options.plot:
        plot(report, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
