"""The documentation does what it says: commands run, the site builds, pictures are true."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml

import model
import tuner
from model.spec.hyperparameters import SYMBOL_TABLE
from tests.e2e.pages import PAGES, REASONS, ROOT, Block, Reader, blocks_of, check
from tuner.arguments.parser import parse
from tuner.space.parameter import SIZES
from tuner.space_file.load import _SECTIONS

pytestmark = pytest.mark.slow

BLOCKS = {
    path.relative_to(ROOT).as_posix(): blocks_of(
        path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
    )
    for path in PAGES
}
FIRST = "docs/getting_started.md"
E2E, TUNER = "tests/e2e/test_", "tests/tuner/"
# Command of a page other than the first → test that runs a command with these options. On the
# pages, these commands are only checked. All other commands run.
COVERED = {
    "tuner data prepare --space lm":
        f"{TUNER}commands/test_tokenizer.py::test_data_prepare_and_info_describe_corpus",
    "tuner data info --space lm":
        f"{TUNER}commands/test_tokenizer.py::test_data_prepare_and_info_describe_corpus",
    "tuner data sample --space lm --sequences 2":
        f"{TUNER}commands/test_tokenizer.py::test_data_sample_shows_the_first_batch",
    # data and tokenizer of the file itself: e2e/test_spaces.py::test_shipped_space_trains[seq2seq]
    "tuner data prepare --space seq2seq":
        f"{TUNER}commands/test_tokenizer.py::test_data_info_says_how_long_pairs_are",
    "tuner data info --space seq2seq":
        f"{TUNER}commands/test_tokenizer.py::test_data_info_says_how_long_pairs_are",
    "tuner generate --prompt 'def search(' --max-tokens 40":
        f"{E2E}take_away.py::test_command_streams_same_text_as_python",
    "tuner generate --prompt 'import ' --temperature 0 --max-tokens 20 --json":
        f"{TUNER}trained/test_generate.py::test_command_prints_one_json_object",
    "tuner generate --runs lm-1/3 lm-1/0 --prompt 'import ' --max-tokens 20":
        f"{E2E}take_away.py::test_trials_write_side_by_side_what_they_write_alone",
    "tuner search --space lm --name lm-1":
        f"{E2E}search_replay.py::test_search_that_has_finished_says_so",
    "tuner search --resume lm-1 --trials 8":
        f"{E2E}resume.py::test_search_grows_on_resume_and_trains_nothing_twice",
    "tuner sync lm-1": f"{E2E}mlflow.py::test_sending_it_again_adds_nothing",
    "tuner report": f"{E2E}search_replay.py::test_report_has_results_of_the_search",
}  # fmt: skip


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """One who has read the first page, and so has a search."""
    reader = Reader(tmp_path_factory.mktemp("reader"), COVERED)
    reader.follow(BLOCKS[FIRST])
    return reader


@pytest.mark.parametrize("page", [name for name, blocks in BLOCKS.items() if blocks])
def test_commands_of_page_run(reader: Reader, page: str) -> None:
    reader.follow(BLOCKS[page])


def test_pages_have_blocks() -> None:
    """The pages above are no empty list."""
    assert {"README.md", FIRST, "docs/spaces.md", "docs/data.md"} <= BLOCKS.keys()
    languages = [block.language for blocks in BLOCKS.values() for block in blocks]
    assert languages.count("console") > 20
    assert languages.count("yaml") > 10
    assert languages.count("python") > 2
    assert set(languages) <= {"console", "python", "yaml", "text"}
    commands = [c for blocks in BLOCKS.values() for b in blocks for c in b.commands]
    words = {command.split()[1] for command in commands if command.startswith("tuner ")}
    assert words >= {
        "search",
        "sync",
        "ui",
        "replay",
        "validate",
        "symbols",
        "list",
        "show",
        "data",
    }


def test_covered_commands_are_on_pages_and_have_their_tests() -> None:
    """None is one of the first page, which is run as a whole, or one whose output is compared."""
    runs = {
        (name, command)
        for name, blocks in BLOCKS.items()
        for block in blocks
        for command in block.commands
        if "not run" not in block.notes
    }
    compared = {c for blocks in BLOCKS.values() for b in blocks if "exit" in b.notes
                for c in b.commands}  # fmt: skip
    assert COVERED.keys() <= {command for name, command in runs if name != FIRST}
    assert not COVERED.keys() & ({command for name, command in runs if name == FIRST} | compared)
    for where in COVERED.values():
        file, _, test = where.partition("::")
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), where


def test_every_reason_for_not_running_is_used() -> None:
    reasons = {
        b.notes["not run"] for blocks in BLOCKS.values() for b in blocks if "not run" in b.notes
    }
    assert reasons == REASONS


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("tuner serach", "invalid choice"),
        ("tuner search --space x.yaml", "there is no x.yaml"),
        ("tuner show --buy B", "unrecognized arguments: --buy"),
        ("make serach", "No rule to make target"),
    ],
)
def test_block_that_is_not_run_is_checked(command: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(command, "page.md:1")


@pytest.mark.parametrize(
    ("language", "text", "message"),
    [
        ("console", "$ tuner serach\n", "invalid choice"),
        ("console", "$ tuner show --search nothing\n", "nothing"),
        ("yaml", "search: {sampler: tpee}\n", "did you mean tpe"),
        ("python", "from tuner import serach\n", "has no attribute|cannot import"),
    ],
)
def test_wrong_page_is_detected(reader: Reader, language: str, text: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        reader.follow([Block("made-up.md", 1, language, text, {})])


def help_of(*command: str) -> str:
    """What `--help` says; an unknown command ends with another status."""
    with redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as end:
        parse([*command, "--help"])
    assert end.value.code == 0, command
    return out.getvalue()


def test_commands_in_sentences_exist() -> None:
    """Those between backticks, such as `tuner show --by optimizer`, with their options."""
    found = 0
    for path in PAGES:
        for span in re.findall(r"`tuner ([a-z][^`]*)`", path.read_text(encoding="utf-8")):
            words = span.split()
            said = help_of(*words[: 2 if words[0] in ("data", "tokenizer") else 1])
            for option in re.findall(r"--[a-z][a-z-]*", span):
                assert f"{option} " in said, f"{path.name}: tuner {span}"
            found += 1
    assert found > 30


def test_site_names_every_command_and_option(site: Path) -> None:
    page = (site / "commands.html").read_text(encoding="utf-8")
    commands = re.findall(r"^    ([a-z]+)", help_of().partition("commands:\n")[2], re.MULTILINE)
    assert len(commands) > 30
    for command in commands:
        assert f">tuner {command}<" in page
        said = help_of(command).replace("%", "%%")
        for option in re.findall(r"^  (--[a-z-]+)", said, re.MULTILINE):
            assert option in {"--debug", "--json", "--home"} or f"<code>{option}" in page, option


def test_site_names_every_section_and_its_entries(site: Path) -> None:
    page = (site / "sections.html").read_text(encoding="utf-8")
    for section, kind in _SECTIONS.items():
        assert f'id="{section}"' in page
        for entry in kind.model_fields:
            assert f"<td><code>{entry}</code></td>" in page
    assert "<td>&gt; 0, &lt; 1</td>" in page  # of data.validation_fraction
    assert ">full, raced, off<" in page  # of search.defaults
    rows = re.findall(r"<tr><td>.*?</td><td>.*?</td><td>.*?</td><td>(.*?)</td></tr>", page)
    assert len(rows) > 60
    assert all(rows), "an entry has no meaning in the docstring of its section"


def test_site_names_the_public_names_of_both_packages(site: Path) -> None:
    page = (site / "python.html").read_text(encoding="utf-8")
    for package in (model, tuner):
        for name in package.__all__:
            assert f"<td><code>{name}</code></td>" in page
    assert "<code>(path, overrides=())</code>" in page  # load_space


def test_links_have_targets() -> None:
    """As GitHub follows them. MkDocs checks those of its pages, but not those in HTML."""
    targets = [
        (path, target)
        for path in PAGES
        for pattern in (r"\]\(([^)#:]+)(?:#[^)]*)?\)", r' (?:src|srcset)="([^"]+)"')
        for target in re.findall(pattern, path.read_text(encoding="utf-8"))
    ]
    assert len(targets) > 60
    assert [(path, t) for path, t in targets if not (path.parent / t).exists()] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as it is built in CI."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_site_has_every_page(site: Path) -> None:
    pages = {path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html")}
    sources = {Path(name).relative_to("docs").with_suffix("").as_posix() for name in BLOCKS
               if name.startswith("docs/")}  # fmt: skip
    assert pages - {"404"} == sources
    assert sources <= {Path(p).with_suffix("").as_posix() for p in _leaves(_nav())}


def test_site_shows_the_symbol_table_of_the_code(site: Path) -> None:
    page = (site / "symbols.html").read_text(encoding="utf-8")
    for row in SYMBOL_TABLE.values():
        assert f"<td><code>{row.symbol}</code></td>" in page
        assert f"<code>{row.name}</code>" in page
        for choice in row.choice_meanings:
            assert f"<td><code>{choice}</code></td>" in page
    for entry in SIZES:
        assert f"<td><code>{entry}</code></td>" in page


def test_site_loads_nothing_from_elsewhere(site: Path) -> None:
    """What a browser fetches unasked, in pages and in style sheets."""
    fetched = r'<(?:script|img|iframe|source)[^>]+src="?(https?:)?//|<link[^>]+href="?(https?:)?//'
    for page in site.rglob("*.html"):
        assert not re.search(fetched, page.read_text(encoding="utf-8")), page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(https?:)?//", sheet.read_text()), sheet


def test_pictures_are_up_to_date(tmp_path: Path) -> None:
    command = [sys.executable, "docs/figures/draw.py", "--out", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True)
    drawn = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text(encoding="utf-8")
            for path in (ROOT / "docs" / "pictures").glob("*.svg")}  # fmt: skip
    assert len(drawn) > 5
    assert drawn == kept, "run `python docs/figures/draw.py`, look at the pictures, commit them"


def _nav() -> object:
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]


def _leaves(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for value in nav.values():
            yield from _leaves(value)
    elif isinstance(nav, list):
        for item in nav:
            yield from _leaves(item)
