"""`tuner tokenizer` and `tuner data`, as a user calls them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tokenizers as huggingface
from rich.console import Console

from model.tokenizer.tokenizer import Tokenizer
from tuner.cli import main
from tuner.terminal.tokens import coloured

EOT = "<|endoftext|>"
README = Path(__file__).parents[3] / "README.md"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    command = ["tokenizer", "train", str(README), "-o", str(folder), "--vocab-size", "400"]
    assert main(command) == 0
    return folder


def test_tokenizer_train_writes_what_others_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = README.read_text(encoding="utf-8")
    arguments = [str(README), "--vocab-size", "400", "--special", "<|user|>", "--json"]
    for file_format, names in (
        ("huggingface", ["tokenizer.json"]),
        ("gpt2", ["vocab.json", "merges.txt"]),
        ("tiktoken", ["tokenizer.tiktoken"]),
    ):
        folder = tmp_path / file_format
        more = ["-o", str(folder), "--format", file_format, "--pattern", "gpt4"]
        assert main(["tokenizer", "train", *arguments, *more]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["vocab_size"] == 400
        assert facts["special_tokens"] == ["<|user|>"]
        assert [Path(path).name for path in facts["files"]] == names
    ours = Tokenizer.from_file(tmp_path / "huggingface")
    theirs = huggingface.Tokenizer.from_file(str(tmp_path / "huggingface" / "tokenizer.json"))
    assert theirs.encode(text).ids == ours.encode(text)
    same = Tokenizer.from_file(tmp_path / "gpt2", ["<|user|>"], "gpt4")
    assert same.fingerprint == ours.fingerprint


def test_tokenizer_train_cuts_at_special_tokens(tmp_path: Path) -> None:
    path = tmp_path / "chat.txt"
    path.write_text("a<|user|>b<|user|>" * 50)
    command = ["tokenizer", "train", str(path), "-o", str(tmp_path / "made")]
    assert main([*command, "--special", "<|user|>"]) == 0
    assert Tokenizer.from_file(tmp_path / "made").merges == []


def test_tokenizer_encode_and_decode_are_inverse(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer, text = Tokenizer.from_file(trained), README.read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["tokenizer", "encode", str(trained), str(README)]) == 0
    ids = capsys.readouterr().out
    assert [int(word) for word in ids.split()] == tokenizer.encode(text)
    (tmp_path / "ids.txt").write_text(ids.replace("\n", ", "))
    assert main(["tokenizer", "decode", str(trained), str(tmp_path / "ids.txt")]) == 0
    assert capsys.readouterr().out == text
    array = tmp_path / "ids.npy"
    command = ["tokenizer", "encode", str(trained), str(README), "-o", str(array), "--json"]
    assert main(command) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["tokens"], facts["bytes"]) == (len(tokenizer.encode(text)), len(text.encode()))
    assert np.load(array).dtype == np.uint16
    assert main(["tokenizer", "decode", str(trained), str(array), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"text": text}


@pytest.mark.slow
def test_tokenizer_reads_standard_input(trained: Path) -> None:
    command = [sys.executable, "-m", "tuner", "tokenizer"]
    encoded = subprocess.run(
        [*command, "encode", str(trained)], input="wörld\r\n".encode(), stdout=-1, check=True
    )
    decoded = subprocess.run(
        [*command, "decode", str(trained)], input=encoded.stdout, stdout=-1, check=True
    )
    assert decoded.stdout == "wörld\r\n".encode()


def test_tokenizer_show_makes_every_token_visible(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    text = f"the 日\tx\n{EOT}"
    assert main(["tokenizer", "show", str(trained), "--text", text]) == 0
    out = capsys.readouterr().out
    assert "400 ids, 143 merges" in out
    assert f"the·<e6><97><a5>→x⏎\n{EOT}" in out
    tokenizer = Tokenizer.from_file(trained)
    ids = tokenizer.encode(text)
    assert f"{len(ids)} tokens: {len(text.encode()) / len(ids):.2f} bytes per token" in out
    # neighbours differ in colour, and the special token is inverted
    spans = coloured(tokenizer, ids).spans
    styles = [str(span.style) for span in spans]
    assert len(spans) == len(ids)
    assert all(a != b for a, b in pairwise(styles))
    assert "reverse" in styles[-1]
    console = Console(file=io.StringIO(), force_terminal=True, color_system="256")
    console.print(coloured(tokenizer, ids))
    assert "\x1b[37;48;5;24m" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "missing.txt"], r"cannot read missing.txt"),
        (["train", "{readme}", "--special", ""], "a special token must not be empty"),
        (["train", "{readme}", "-o", "{readme}/x"], "cannot write to"),
        (["encode", "missing"], "cannot read missing"),
        (["encode", "{readme}"], "README.md is not a tokenizer.json of Hugging Face"),
        (["encode", "{trained}", "missing.txt"], "cannot read missing.txt"),
        (["encode", "{trained}", "{latin}"], r"is not UTF-8 at byte 3"),
        (["encode", "{trained}", "{readme}", "-o", "{readme}/x.npy"], "cannot write"),
        (["decode", "{trained}", "{readme}"], "does not hold token ids"),
        (["decode", "{trained}", "{far}"], "there is no token 999999 in the vocabulary"),
    ],
)
def test_tokenizer_mistakes_are_one_sentence(
    arguments: list[str],
    message: str,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    latin, far = tmp_path / "latin.txt", tmp_path / "far.txt"
    latin.write_bytes(b"caf\xe9")
    far.write_text("1 999999")
    capsys.readouterr()
    filled = [a.format(readme=README, trained=trained, latin=latin, far=far) for a in arguments]
    assert main(["tokenizer", *filled]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith(f"tuner tokenizer {arguments[0]}: ")
    assert message in error[-1]


SPACE = """
name: small
data: {files: texts, separator: "§"}
tokenizer: {vocab_size: 300, pattern: gpt4}
model: {context_length: 16}
budget: {tokens: 1000}
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    (tmp_path / "texts").mkdir()
    text = "§".join(f"Document {i}: wörds and words.\n" * (i + 1) for i in range(40))
    (tmp_path / "texts" / "a.txt").write_text(text, encoding="utf-8")
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    return tmp_path / "space.yaml"


def test_data_prepare_and_info_describe_corpus(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--space", str(space), "--home", str(tmp_path / "home")]
    assert main(["data", "info", *where]) == 2
    error = capsys.readouterr().err
    assert f"run 'tuner data prepare --space {space} --home " in error
    assert not (tmp_path / "home").exists()
    assert main(["data", "prepare", *where, "--json"]) == 0
    prepared = json.loads(capsys.readouterr().out)
    assert main(["data", "info", *where, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == prepared
    assert prepared["train"]["documents"] + prepared["validation"]["documents"] == 40
    text = (tmp_path / "texts" / "a.txt").read_text(encoding="utf-8").replace("§", "")
    assert prepared["train"]["bytes"] + prepared["validation"]["bytes"] == len(text.encode())
    assert (prepared["vocab_size"], prepared["pattern"], prepared["files"]) == (300, "gpt4", 1)
    assert prepared["sequences"] == {"16": (prepared["train"]["tokens"] - 1) // 16}
    for expected in ("documents", "bytes/token", "training sequences of 16 tokens", "a.txt"):
        assert expected in err


def test_data_sample_shows_the_first_batch(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--space", str(space), "--home", str(tmp_path / "home")]
    assert main(["data", "sample", *where, "--sequences", "3", "--json"]) == 0
    sample = json.loads(capsys.readouterr().out)
    assert sample["context_length"] == 16
    assert len({sequence["number"] for sequence in sample["sequences"]}) == 3
    assert all(len(sequence["ids"]) == 16 for sequence in sample["sequences"])
    assert any("Document" in sequence["text"] for sequence in sample["sequences"])
    assert main(["data", "sample", *where, "--sequences", "3", "--seed", "1"]) == 0
    out = capsys.readouterr().out
    assert out.count("sequence") >= 4
    assert "·" in out
    assert main(["data", "sample", *where, "--sequences", "3", "--seed", "1", "--json"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["sequences"] != sample["sequences"]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A space of ten pairs, one of which has a long source."""
    rows = [{"en": "word " * i, "fr": "mots"} for i in range(1, 10)] + [{"en": "a b", "fr": "c"}]
    rows[0]["en"] = "x1 " * 300
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "space.yaml").write_text(
        "data: {files: a.jsonl, pairs: true, source_field: en, target_field: fr}\n"
        "tokenizer: {vocab_size: 265}\nmodel: {n_encoder_layers: 1}\nbudget: {tokens: 1000}\n"
    )
    return tmp_path / "space.yaml"


def test_data_info_says_how_long_pairs_are(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--space", str(pairs), "--home", str(tmp_path / "home")]
    assert main(["data", "prepare", *where, "--json"]) == 0
    prepared = json.loads(capsys.readouterr().out)
    assert main(["data", "info", *where, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == prepared
    assert main(["data", "sample", *where, "--sequences", "10", "--json"]) == 0
    sample = json.loads(capsys.readouterr().out)["pairs"]
    train = prepared["train"]
    assert len(sample) == train["pairs"] == 10 - prepared["validation"]["pairs"]
    for side in ("source", "target"):
        lengths = sorted(len(pair[f"{side}_ids"]) + 1 for pair in sample)
        assert train[f"{side}_tokens"] == {
            "median": float(np.median(lengths)),
            "p90": lengths[-(-9 * len(lengths) // 10) - 1],
            "longest": lengths[-1],
        }
    assert "sequences" not in prepared
    assert f"{train['pairs']} training pairs" in err
    for expected in ("train sources", "validation targets", "90 % have at most"):
        assert expected in err


def test_data_sample_shows_pairs(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--space", str(pairs), "--home", str(tmp_path / "home")]
    assert main(["data", "sample", *where, "--sequences", "10", "--json"]) == 0
    sample = json.loads(capsys.readouterr().out)["pairs"]
    assert len({pair["number"] for pair in sample}) == len(sample)
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert all({"en": pair["source"], "fr": pair["target"]} in rows for pair in sample)
    assert main(["data", "sample", *where, "--sequences", "10"]) == 0
    out = capsys.readouterr().out
    assert out.count("→ ") == len(sample)
    longest = max(len(pair["source_ids"]) for pair in sample)
    assert longest > 400
    assert f"… {longest - 400:,} more tokens" in " ".join(out.split())
