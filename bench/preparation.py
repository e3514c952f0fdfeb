"""Cost of preparing a large text: peak memory, and bytes per second.

    python bench/preparation.py                  1 GB, with a new word in each line of ten
    python bench/preparation.py --lines plain    1 GB without new words
    python bench/preparation.py --quick          2 MB, as a test of the bench
    python bench/preparation.py --out FILE.json  also write the numbers

The text consists of documents of the standard library in random order. New words are added because
copies have none, and the training of a tokenizer must remember words that occur once. Memory is the
proportional set size (PSS) of all processes, summed twice a second; Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import string
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from parts.memory import descendants, pss_bytes

from model.sources.registry import documents
from model.spec.data import END_OF_TEXT, DataConfig

ROOT = Path(__file__).resolve().parents[1]
PERIOD_SECONDS = 0.5
SPACE = """\
name: preparation
data: {files: text.txt}
tokenizer: {vocab_size: 8192}
budget: {tokens: 100_000}
"""


def write_text(path: Path, size: int, *, with_words: bool) -> None:
    """Write documents of the standard library until the file has `size` bytes."""
    texts = [document.text for document in documents(DataConfig())]
    draw, written = random.Random(0), 0
    with path.open("w", encoding="utf-8", newline="") as file:
        while written < size:
            lines = draw.choice(texts).splitlines(keepends=True)
            if with_words:
                for number in range(0, len(lines), 10):
                    word = "".join(draw.choices(string.ascii_lowercase, k=8))
                    lines[number] = f"{word} {lines[number]}"
            text = "".join(lines) + END_OF_TEXT
            file.write(text)
            written += len(text.encode())


def main() -> int:
    """Prepare one text, and print the cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="2 MB")
    parser.add_argument("--lines", choices=("words", "plain"), default="words")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "text.txt")
        write_text(text, 2_000_000 if options.quick else 10**9, with_words=options.lines == "words")
        Path(folder, "space.yaml").write_text(SPACE, encoding="utf-8")
        command = [sys.executable, "-m", "tuner", "data", "prepare", "--json"]
        command += ["--space", f"{folder}/space.yaml", "--home", f"{folder}/home"]
        began, peak, most = time.monotonic(), 0, 0
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        while process.poll() is None:
            pids = descendants(process.pid)
            peak, most = max(peak, pss_bytes(pids)), max(most, len(pids))
            time.sleep(PERIOD_SECONDS)
        wall = time.monotonic() - began
        out = process.stdout.read() if process.stdout else ""
        if process.returncode:
            return 1
        size = text.stat().st_size
    facts = json.loads(out.splitlines()[-1])
    numbers = {
        "bytes": size,
        "tokens": facts["train"]["tokens"] + facts["validation"]["tokens"],
        "wall_seconds": wall,
        "megabytes_per_second": size / wall / 1e6,
        "peak_pss_bytes": peak,
        "processes": most,
        "cores": len(os.sched_getaffinity(0)),
    }
    for name, value in numbers.items():
        print(
            f"{name:22} {value:>16,.3f}" if isinstance(value, float) else f"{name:22} {value:>16,}"
        )
    if options.out:
        options.out.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
