"""Builds wheel and sdist, and does in an empty folder what the README says, as a new user would.

    python tests/release.py                    both, on this Python and on the newest at hand
    python tests/release.py --only wheel --python python3.11 --quick

Nothing is published. The commands are those of the README, read from it, and those of its table;
`--quick` searches four short trials in place of 24. `--pip` hands an argument to pip, such as the
index that has torch for processors alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
KINDS = {"wheel": "*.whl", "sdist": "*.tar.gz"}
# What the build reads; `tests/e2e/test_wheel.py` builds from the same.
SOURCES = (
    "model", "tuner", "search_spaces", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md",
    "LICENSE",
)  # fmt: skip
# Of the table of the README, with what stands for its words in capitals.
TABLE = ("tuner show", "tuner show --yaml", "tuner report", "tuner export -o exported")
QUICK = ("--trials", "4", "--set", "budget.tokens=20_000", "--set", "confirm=off")
NEWEST, OLDEST = 30, 11  # minor versions of Python 3 that are looked for
_BUILD = "from setuptools import build_meta as b; b.build_sdist({0!r}); b.build_wheel({0!r})"
_SECONDS = 120  # until a server listens
_LINK = re.compile(r"http://127\.0\.0\.1:\d+\S*")
_NOTES = "A line of somebody's own text, of no use but to be read.\n\n" * 400


def build(folder: Path) -> None:
    """Build wheel and sdist into a folder from the files that git knows, without their folder."""
    with tempfile.TemporaryDirectory() as temporary:
        archive = subprocess.run(
            ["git", "archive", "HEAD", *SOURCES], cwd=ROOT, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", temporary], input=archive.stdout, check=True)
        code = _BUILD.format(str(folder))
        # it prints a line for each file
        subprocess.run(
            [sys.executable, "-c", code], cwd=temporary, check=True, stdout=subprocess.DEVNULL
        )


def pythons() -> list[str]:
    """Return this Python, and the newest one at hand if it is newer."""
    homes = [*Path.home().glob(".pyenv/versions/3.*/bin"), *os.get_exec_path()]
    path = os.pathsep.join(map(str, homes))
    for minor in range(NEWEST, OLDEST, -1):
        found = shutil.which(f"python3.{minor}", path=path)
        if found and minor > sys.version_info.minor and _runs(found):
            return [sys.executable, found]
    return [sys.executable]


def _runs(python: str) -> bool:
    done = subprocess.run([python, "-c", "import venv, ssl"], check=False, capture_output=True)
    return done.returncode == 0


def commands(readme: str) -> list[str]:
    """Return the commands of the README that begin with `tuner`, and those of its table."""
    typed = re.findall(r"^\$ (tuner .*?)(?:\s+#.*)?$", readme, re.MULTILINE)
    return [*typed, *TABLE]


def install(python: str, package: Path, folder: Path, options: Sequence[str]) -> Path:
    """Install a package into an environment of its own; return the folder of its commands."""
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
    pip = [folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", *options, package], check=True)
    return folder / "venv" / "bin"


def follow(bin_folder: Path, folder: Path, *, quick: bool) -> Iterator[str]:
    """Do what the README says; yield a line on each command, and end at the first that fails."""
    (folder / "notes.txt").write_text(_NOTES)
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    for command in commands((ROOT / "README.md").read_text(encoding="utf-8")):
        words = [str(bin_folder / "tuner"), *command.split()[1:]]
        words += QUICK if quick and "search" in words[1:2] else ()
        if words[1] == "ui":
            yield f"{command}: {_page_of(words, folder, environment)}"
            continue
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{done.stdout}{done.stderr}\nfailed with status {done.returncode}: {command}")
        last = [line for line in f"{done.stderr}\n{done.stdout}".splitlines() if line.strip()]
        yield f"{command}: {last[-1] if last else ''}"


def _page_of(words: Sequence[str], folder: Path, environment: dict[str, str]) -> str:
    """Start a server, read its page, and end it by SIGTERM: a background job may ignore Ctrl-C."""
    with subprocess.Popen(
        [*words, "--no-browser"], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as server:  # fmt: skip
        assert server.stdout is not None
        link = next((m[0] for line in server.stdout if (m := _LINK.search(line))), None)
        try:
            status = _status_of(link, server) if link else 0
        finally:
            server.send_signal(signal.SIGTERM)
    if status != 200:
        sys.exit(f"{' '.join(words)} shows no page: {link}, status {status}")
    return f"{link} answers"


def _status_of(link: str, server: subprocess.Popen[str]) -> int:
    """Return the status of a page, which is shown before the server listens; 0 if it never does."""
    for _ in range(_SECONDS):
        try:
            with urllib.request.urlopen(link.split("#")[0], timeout=60) as page:
                return int(page.status)
        except urllib.error.URLError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout=1)
                return 0
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=KINDS, action="append", help="(default: both)")
    parser.add_argument("--python", action="append", help="(default: this one, and the newest)")
    parser.add_argument("--pip", action="append", default=[], metavar="OPTION")
    parser.add_argument("--quick", action="store_true", help="search four short trials")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="(default: dist/)")
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    build(options.out.absolute())
    for python in options.python or pythons():
        for kind in options.only or KINDS:
            (package,) = options.out.absolute().glob(KINDS[kind])
            with tempfile.TemporaryDirectory() as folder:
                sys.stdout.write(f"{package.name} on {python}\n")
                bin_folder = install(python, package, Path(folder), options.pip)
                work = Path(folder, "work")
                work.mkdir()
                for line in follow(bin_folder, work, quick=options.quick):
                    sys.stdout.write(f"  {line}\n")
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
