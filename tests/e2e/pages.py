"""Pages of documentation as a reader who does all that they say."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from model import Tokenizer, train_bpe
from tests.e2e.command_process import (
    OWN_PROCESS,
    SECONDS,
    Run,
    plain_environment,
    run_command,
    run_program,
)
from tuner.arguments.parser import parse
from tuner.space_file.load import load_space

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Why a block may be checked instead of run. Each is for a few blocks; docs/about.md lists them.
REASONS = {
    "takes minutes",
    "deletes a search",
    "changes the shell",
    "serves until Ctrl-C",
    "needs a GPU",
    "needs a server",
    "needs Docker",
    "needs a download",
    "needs several machines",
    "runs in the background",
}
# Files that commands of pages write, which are only checked.
WRITTEN = {"notes.yaml", "transfer.yaml"}
_NOTE = re.compile(r"<!-- (not run|exit|file|merged into):? (.+) -->")
_SHELL_WORDS = set("|&;<>$`*")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: its file, as seen from the root.
        line: of the fence.
        language: console, python, yaml, …
        text: between the fences.
        notes: what the comments before it say: `not run`, `exit`, `file`, `merged into`.
    """

    page: str
    line: int
    language: str
    text: str
    notes: dict[str, str]

    @property
    def commands(self) -> list[str]:
        """Typed commands, without comments; a backslash at the end continues a line."""
        text = self.text.replace("\\\n", " ")
        lines = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
        return [re.split(r"\s+#\s", line)[0].strip() for line in lines]

    @property
    def output(self) -> list[str]:
        """What is shown as printed."""
        text = self.text.replace("\\\n", " ")
        return [line for line in text.splitlines() if not line.startswith("$ ")]

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.page}:{self.line}"


def blocks_of(text: str, page: str) -> list[Block]:
    """The fenced blocks of a page."""
    blocks: list[Block] = []
    notes: dict[str, str] = {}
    fence: tuple[int, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if fence is not None:
            if line.startswith("```"):
                blocks.append(Block(page, fence[0], fence[1], "\n".join(lines) + "\n", notes))
                fence, notes, lines = None, {}, []
            else:
                lines.append(line)
        elif line.startswith("```"):
            fence = number, line[3:].strip()
        elif note := _NOTE.fullmatch(line):
            notes = {**notes, note[1]: note[2]}
        elif line.strip():
            assert not notes, f"{page}:{number}: a comment must stand before its block: {notes}"
            assert "```" not in line or line.count("```") == 2, f"{page}:{number}: indented fence"
    return blocks


class Reader:
    """Does what pages say, in one folder. What has been done is not done again.

    Args:
        folder: empty; it gets links to what readers have in the repository.
        covered: commands that are checked instead of run, because another test runs them.
    """

    def __init__(self, folder: Path, covered: Collection[str] = ()) -> None:
        self.folder, self.covered = folder, covered
        self._done: dict[str, Run] = {}
        bin_folder = folder / ".bin"
        bin_folder.mkdir()
        for name, module in (("tuner", "-m tuner"), ("python", "")):
            path = bin_folder / name
            path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
            path.chmod(0o755)
        for name in ("README.md", "Makefile", "search_spaces", "docs", "examples", "bench"):
            if (ROOT / name).exists():
                (folder / name).symlink_to(ROOT / name)
        self._write_data()
        self._environment = {
            **plain_environment(),
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "160",
        }

    def _write_data(self) -> None:
        """Files that pages speak of as the reader's own."""
        for folder in ("texts", "more"):
            (self.folder / folder).mkdir()
        for number in range(30):
            (self.folder / "texts" / f"{number}.txt").write_text(f"text {number} and its words")
        (self.folder / "more" / "a.jsonl").write_text('{"body": "one more"}\n')
        (self.folder / "notes.txt").write_text("notes")
        (self.folder / "input.txt").write_text("A line of a play.\n\n" * 400)
        (self.folder / "15.safetensors").touch()  # only looked for; tests of warm starts read one
        vocab, merges = train_bpe(self.folder / "notes.txt", 257, ["<|endoftext|>"])
        Tokenizer(vocab, merges, ["<|endoftext|>"]).save(self.folder, "huggingface")
        (self.folder / "pairs.tsv").write_text("en\tde\na word\tein Wort\n")
        (self.folder / "chats.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
        (self.folder / "questions.jsonl").touch()  # only looked for

    def do(self, block: Block) -> None:
        """Run, read or check a block."""
        reason = block.notes.get("not run")
        assert reason is None or reason in REASONS, f"{block.where}: not run: {reason}"
        if "file" in block.notes:
            (self.folder / block.notes["file"]).write_text(block.text, encoding="utf-8")
        elif block.language == "yaml":
            self._read(block)
        elif block.language == "console":
            assert block.commands, f"{block.where}: no line begins with $"
            for command in block.commands:
                if reason is None and command not in self.covered:
                    self._run(block, command)
                else:
                    check(command, block.where)

    def follow(self, blocks: list[Block]) -> None:
        """Do all blocks of a page, its Python as one program at the end."""
        for block in blocks:
            self.do(block)
        lines: list[str] = []
        for block in blocks:
            if block.language == "python":
                text = block.text if "not run" not in block.notes else _imports(block.text)
                lines += [""] * (block.line - len(lines)) + text.splitlines()
        if lines:
            program = "\n".join(lines)
            run = run_program(program, blocks[0].page, self.folder, self._environment)
            assert run.status == 0, run.err

    def _run(self, block: Block, command: str) -> None:
        run = self._done.get(command) or self._type(command)
        if run.status == 0:
            self._done[command] = run
        printed = (run.out + run.err).splitlines()
        expected = int(block.notes.get("exit", 0))
        assert run.status == expected, "\n".join([f"{block.where}: {command}", *printed])
        if "exit" in block.notes:
            assert [line for line in printed if line in block.output] == block.output, printed

    def _type(self, command: str) -> Run:
        words = shlex.split(command)
        if words[0] == "tuner" and words[1] not in OWN_PROCESS and not _SHELL_WORDS & {*command}:
            return run_command(words[1:], self.folder, self._environment)
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False,
            timeout=SECONDS,
        )  # fmt: skip
        return Run(done.returncode, done.stdout, done.stderr)

    def _read(self, block: Block) -> None:
        """A search space, or a fragment in the place of what another one says."""
        given = yaml.safe_load(block.text)
        whole: dict[str, Any] = {}
        if not {"name", "hyperparameters"} <= given.keys():
            base = ROOT / "search_spaces" / block.notes.get("merged into", "lm.yaml")
            whole = yaml.safe_load(base.read_text(encoding="utf-8"))
            if "init_from" in given:  # which brings its tokenizer along
                del whole["tokenizer"]
        for key, value in given.items():
            before = whole.get(key)
            is_choice = key in ("data", "tokenizer", "init_from", "objective")
            merges = isinstance(before, dict) and isinstance(value, dict) and not is_choice
            whole[key] = {**before, **value} if merges else value
        file = self.folder / f"{block.page.replace('/', '-')}-{block.line}.yaml"
        file.write_text(yaml.safe_dump(whole, allow_unicode=True, sort_keys=False))
        load_space(file)


def check(command: str, where: str) -> None:
    """A command that is not run would be understood."""
    words = shlex.split(command)
    while "=" in words[0]:
        del words[0]
    if words[0] == "tuner":
        with contextlib.redirect_stderr(io.StringIO()) as said:
            try:
                parse(words[1:])
            except SystemExit as error:
                raise AssertionError(f"{where}: {command}: {said.getvalue()}") from error
    elif words[0] == "make":
        dry = ["make", "--dry-run", "--directory", str(ROOT), *words[1:]]
        done = subprocess.run(dry, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{where}: {command}: {done.stderr}"
    for word in words:
        if word.endswith((".yaml", ".py")) and word not in WRITTEN:
            assert (ROOT / word).exists(), f"{where}: there is no {word}"


def _imports(text: str) -> str:
    """The same program without all but its imports, at the same lines."""
    tree, lines = ast.parse(text), text.splitlines()
    kept = [""] * len(lines)
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            kept[node.lineno - 1 : node.end_lineno] = lines[node.lineno - 1 : node.end_lineno]
    return "\n".join(kept)
