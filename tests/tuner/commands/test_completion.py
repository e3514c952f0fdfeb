"""Scripts with which shells complete the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.arguments.parser import SHELLS
from tuner.cli import main

_COMPLETE = """
source completion.bash
for line in "$@"; do
    read -ra COMP_WORDS <<< "$line"
    [[ $line == *' ' ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
    _shtab_tuner
    echo "${COMPREPLY[@]}"
done
"""


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert "max-tokens" in out
    assert "TUNER_HOME" in out


def test_completion_finishes_commands_options_and_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "completion.bash").write_text(capsys.readouterr().out)
    (tmp_path / "home" / "searches" / "lm-1").mkdir(parents=True)
    (tmp_path / "runs" / "searches" / "lm-2").mkdir(parents=True)
    (tmp_path / "lm.yaml").write_text("")
    expected = {
        "tuner compl": "completion",
        "tuner search --max-ti": "--max-time",
        "tuner search --space lm.": "lm.yaml",
        "tuner show --search ": "lm-2",
        "tuner delete l": "lm-2",
        "tuner data prep": "prepare",
        "tuner export --format h": "hf",
    }
    command = ["bash", "-c", _COMPLETE, "bash", *expected]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == list(expected.values()), done.stderr
    environment = {**os.environ, "TUNER_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        ["bash", "-c", _COMPLETE, "bash", "tuner search --resume "], cwd=tmp_path, text=True,
        capture_output=True, check=True, env=environment,
    )  # fmt: skip
    assert done.stdout == "lm-1\n"


def test_completion_runs_nothing_that_a_folder_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "completion.bash").write_text(capsys.readouterr().out)
    for name in ("$(touch RUN)", "`touch RUN`", "a; touch RUN", "~", "-x", "lm-1", "größe_2.1"):
        (tmp_path / "runs" / "searches" / name).mkdir(parents=True)
    done = subprocess.run(
        ["bash", "-c", _COMPLETE, "bash", "tuner status ", "tuner show --search "], cwd=tmp_path,
        text=True, capture_output=True, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert not (tmp_path / "RUN").exists()
    for line in done.stdout.splitlines():
        assert set(line.split()) == {"lm-1", "größe_2.1"}


@pytest.mark.slow
def test_completion_does_not_slow_other_commands() -> None:
    code = "import sys, tuner.cli; sys.exit('shtab' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
