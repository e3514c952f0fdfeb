"""The page of a report as text, its plots, and searches that are hard to draw."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from model.engine.report import Report, Status
from tests.tuner.results.finished_search import ARMS, SPACE, result_in
from tests.tuner.simulated_search import trained
from tuner.cli import main
from tuner.commands import report as report_command
from tuner.conductor.outcome import Outcome
from tuner.conductor.trial import Trial
from tuner.conductor.verdict import headline
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.report.page import html_of
from tuner.report.write import figures_of, write_report
from tuner.results.result import SearchResult

CONTROLS = "\x1b\x07\x9b\u202e"
EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)>&amp;"
FRONT = "objective: [{metric: val_loss}, {metric: parameters}]"


class Texts(HTMLParser):
    """Texts of the elements of a page, and the data of its scripts by id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.data: dict[str, str] = {}
        self._id: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._id = (dict(attributes).get("id") or "?") if tag in ("script", "style") else None

    def handle_data(self, text: str) -> None:
        if self._id is None:
            self.words.append(text)
        else:
            self.data[self._id] = text

    def handle_endtag(self, tag: str) -> None:
        self._id = None

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return result_in(tmp_path_factory.mktemp("space"), "trials: 24, sampler: random")


@pytest.fixture(scope="module")
def page(result: SearchResult) -> Texts:
    return Texts(html_of(result, {result.best.number: "def <b>close</b>(self):"}))


@pytest.mark.slow
def test_page_starts_with_answer(page: Texts, result: SearchResult) -> None:
    best, confirmation = result.best, result.confirmation
    assert confirmation is not None
    assert confirmation.winner is not None
    answer = page.text[: page.text.index("Progress of the search")]
    for text in (
        f"Trial {best.number}: val_loss", f"{best.objective('val_loss'):.4f}",
        f"{confirmation.winner.mean:.4f} ±", f"{result.tokens_spent:,} tokens", "% lower",
        *result.advice,
    ):  # fmt: skip
        assert text in answer, text


@pytest.mark.slow
def test_page_has_every_section(page: Texts, result: SearchResult) -> None:
    for text in (
        "Best so far, by tokens", "Best so far, by time", "val_loss of every trial",
        "Trials at each report", "Early stopping saved", "Importance of parameters", "fANOVA",
        "PED-ANOVA", "All parameters at once", "One parameter at a time", "Samples",
        "def <b>close</b>(self):", "tuner replay --search made-up-1", "cpu: one of them",
        "α_max: {log: [1e-4, 1e-1]}", f"tuner export made-up-1/{result.best.number}",
        f"tuner generate made-up-1/{result.best.number} generate text with the winner",
        "2026-11-21 16:00 UTC",
    ):  # fmt: skip
        assert text in page.text, text
    rows = page.tags.count("tr") - 2 - len(result.space.searched)
    assert rows == len(result.trials) + len(result.confirming)


def test_page_has_a_figure_for_each_parameter_and_few_traces(page: Texts) -> None:
    figures = json.loads(page.data["figures"])
    slices = [name for name in figures if name.startswith("slice-")]
    assert len(slices) == 7
    assert {"best-tokens", "best-time", "curves", "rungs", "confirmed", "importance"} < {*figures}
    assert all(len(figure["data"]) <= 14 for figure in figures.values())


@pytest.mark.slow
def test_page_needs_no_network(result: SearchResult) -> None:
    page = html_of(result)
    assert 4e6 < len(page.encode()) < 6e6  # most of it is Plotly's script
    without_plotly = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", without_plotly)
    assert "@import" not in without_plotly
    assert "default-src 'none'" in page


@pytest.mark.slow
def test_page_escapes_texts_of_users(result: SearchResult) -> None:
    rows = [replace(row) for row in result.trials]
    rows[3].outcome = Outcome.failed(EVIL)
    evil = replace(
        result, trials=rows, space_text=EVIL, environment={EVIL: EVIL}, advice=[EVIL, CONTROLS],
        run_ids={n: EVIL for n in result.run_ids},
    )  # fmt: skip
    calm_html, html = html_of(result, {1: "a"}), html_of(evil, {1: f"{EVIL}{CONTROLS}"})
    assert not {*CONTROLS} & ({*html} - {*calm_html})
    assert r"\x1b\x07\x9b\u202e" in html
    calm, page = Texts(calm_html), Texts(html)
    assert page.tags.count("script") == calm.tags.count("script")
    assert "img" not in page.tags
    assert page.text.count(EVIL) >= 6


def test_json_of_a_page_cannot_end_its_script() -> None:
    from tuner.report.templates import embedded

    assert json.loads(embedded({EVIL: [EVIL]})) == {EVIL: [EVIL]}
    assert json.loads(embedded([CONTROLS])) == [r"\x1b\x07\x9b\u202e"]
    assert not {"<", ">", "&"} & {*embedded({EVIL: [EVIL]})}


def test_labels_of_plots_are_escaped() -> None:
    from tuner.report.picture import safe

    assert safe("<b>a & b</b>") == "&lt;b&gt;a &amp; b&lt;/b&gt;"


@pytest.mark.slow
def test_page_names_a_winner_that_was_not_the_best(result: SearchResult) -> None:
    finished = [row for row in result.ranked if row.has_finished]
    page = Texts(html_of(replace(result, best=finished[1])))
    assert "val_loss of the winner" in page.text
    assert "Best val_loss" not in page.text.partition("Confirmed winner")[0].partition("Cost")[0]
    assert "Best val_loss" in Texts(html_of(result)).text


def test_page_compares_arms(tmp_path: Path) -> None:
    found = result_in(tmp_path, "trials: 12", ARMS)
    page = Texts(html_of(found, {}))
    assert found.verdict is not None
    best, other = (each.arm.text for each in found.verdict.arms)
    assert f"{best} against the other arms" in page.text
    assert headline(found.verdict) in page.text
    (trace,) = json.loads(page.data["figures"])["arms"]["data"]
    assert trace["y"] == [other]
    names = json.loads(page.data["figures"])["confirmed"]["layout"]["yaxis"]["categoryarray"]
    assert [name.partition(",")[0] for name in names] == [best, other]


# searches that are hard to draw ------------------------------------------------------------------


def _all_diverge_but_one(row: Trial, step: int) -> Report:
    report = trained(row, step)
    if row.number == 1:
        return report
    return replace(report, status=Status.DIVERGED, val_loss=math.nan, train_loss=math.nan)


def _goes_wild(row: Trial, step: int) -> Report:
    report = trained(row, step)
    return replace(report, val_loss=1e300) if row.number == 5 else report


def _predicts(row: Trial, step: int) -> Report:
    """A metric of which more is better."""
    report = trained(row, step)
    return replace(report, token_accuracy=1 / report.val_loss)


SIZES = SPACE.replace("tied_embeddings: {choice: [true, false]}", "d_model: {choice: [16, 32]}")
FIXED = SPACE.replace(", tied_embeddings: {choice: [true, false]}", "")
PAIRS = "data: {source: python-docstrings, pairs: true}\n" + FIXED.replace(
    "context_length: 32", "context_length: 32, n_encoder_layers: 1"
)
CASES: dict[str, dict[str, Any]] = {
    "one trial": {"search": "trials: 1"},
    "all diverged but one": {"search": "trials: 8", "train": _all_diverge_but_one},
    "a loss without bounds": {"search": "trials: 12", "train": _goes_wild},
    "left in the middle": {
        "search": "trials: 12", "most": 20, "status": "interrupted", "halted": "interrupted",
        "confirmation": None, "advice": [],
    },
    "under way, one report": {"search": "trials: 12", "most": 1, "status": "running"},
    "without a record of its file": {"search": "trials: 6", "space_text": "", "run_ids": {}},
    "lineages": {"search": "trials: 8, scheduler: pbt", "text": FIXED},
    "several objectives": {
        "search": "trials: 12, scheduler: none",
        "text": SIZES.replace("confirm: {top: 2, seeds: 3}", FRONT),
    },
    "more is better": {
        "search": "trials: 12", "train": _predicts,
        "text": PAIRS + "objective: {metric: token_accuracy}\n",
    },
    "nothing searched": {
        "search": "trials: 1",
        "text": "hyperparameters: {α_max: 0.01}\nmodel: {context_length: 32}\n"
        "budget: {tokens: 27_000, reports: 9}\nsearch: {%s}\n",
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_report_of_a_hard_search(tmp_path: Path, case: str) -> None:
    found = result_in(tmp_path, **CASES[case])
    page = Texts(write_report(found, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert _title(page)
    assert json.loads(page.data["figures"])
    assert "nan" not in page.text.lower().replace("finance", "").split()
    assert {*json.loads(page.data["figures"])} >= {"curves", "rungs"}
    if case in CHECKS:
        CHECKS[case](page, found)


def _title(page: Texts) -> str:
    return next(w for w in page.words if w.startswith("made-up-1: ")).removeprefix("made-up-1: ")


def _one(page: Texts, found: SearchResult) -> None:
    assert "Trial 0 was trained to the end" in page.text
    assert "Too few trials to compute importances" in page.text


def _diverged(page: Texts, found: SearchResult) -> None:
    assert "7 diverged" in page.text
    assert "trial 0 has no value to compare with" in page.text


def _wild(page: Texts, found: SearchResult) -> None:
    assert "outside the plot" in page.text
    curves = json.loads(page.data["figures"])["curves"]
    assert curves["layout"]["yaxis"]["range"][1] < 100


def _left(page: Texts, found: SearchResult) -> None:
    assert _title(page).startswith("So far, ")
    assert "tuner search --resume made-up-1" in page.text
    assert "Confirmed" not in page.text
    assert "Early stopping saved" not in page.text


def _front(page: Texts, found: SearchResult) -> None:
    assert "on the Pareto front" in page.text
    assert "front-0" in json.loads(page.data["figures"])
    assert "Best so far" not in page.text


def _more(page: Texts, found: SearchResult) -> None:
    assert found.space.objective.mode == "max"
    best = max(row.objective("token_accuracy") for row in found.trials if row.has_finished)
    assert found.best.objective("token_accuracy") == best
    assert "higher than the defaults" in page.text
    assert "The best token_accuracy rose from" in page.text
    assert f"tuner generate made-up-1/{found.best.number} --prompt TEXT" in page.text


CHECKS: dict[str, Callable[[Texts, SearchResult], None]] = {
    "one trial": _one,
    "all diverged but one": _diverged,
    "a loss without bounds": _wild,
    "left in the middle": _left,
    "several objectives": _front,
    "more is better": _more,
}


# files -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_figures_are_those_of_the_page(page: Texts, result: SearchResult) -> None:
    drawn = {name: json.loads(figure.to_json()) for name, figure in figures_of(result).items()}
    assert drawn == json.loads(page.data["figures"])


@pytest.mark.slow
def test_report_names_path_that_cannot_be_written(tmp_path: Path, result: SearchResult) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TunerError, match=r"there is no folder .*/file to write report.html to"):
        write_report(result, tmp_path / "file" / "report.html")
    with pytest.raises(TunerError, match="is a folder; name a file in it"):
        write_report(result, tmp_path)
    with pytest.raises(TunerError, match="cannot be written: File name too long"):
        write_report(result, tmp_path / ("x" * 300))
    with pytest.raises(TunerError, match="/dev/full cannot be written: No space left"):
        write_report(result, "/dev/full")


@pytest.mark.slow
def test_report_command_writes_a_page(
    tmp_path: Path,
    result: SearchResult,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names, prompts = [], []

    def samples_of(found: SearchResult, home: Home, prompt: str) -> dict[int, str]:
        prompts.append(prompt)
        return {found.best.number: f"{prompt}: of the winner"}

    monkeypatch.setattr(report_command, "samples_of", samples_of)
    monkeypatch.setattr(report_command, "recorded_home", lambda options: Home.of(options.home))
    monkeypatch.setattr(
        report_command, "load_search", lambda name, home: names.append(name) or result
    )
    opened = list[str]()
    monkeypatch.setattr("webbrowser.open", opened.append)
    page = tmp_path / "r.html"
    home = ["--home", str(tmp_path / "home"), "--search", "lm-7"]
    given = ["-o", str(page), "--prompt", "One day", "--open", "--json"]
    assert main(["report", *home, *given]) == 0
    out, err = capsys.readouterr()
    value = json.loads(out)
    assert (names, prompts) == (["lm-7"], ["One day"])
    assert "One day: of the winner" in page.read_text(encoding="utf-8")
    assert value == {"search": "made-up-1", "report": str(page), "trials": 24}
    assert f"wrote {page}: made-up-1, 24 trials, 4.9 MB" in err
    assert opened == [page.as_uri()]
    assert main(["report", *home, "-o", str(tmp_path / "no" / "r.html")]) == 2
    assert "tuner report: there is no folder" in capsys.readouterr().err
    assert names == ["lm-7"]  # the search was not loaded


@pytest.mark.slow
def test_report_is_written_again_while_the_search_runs(
    tmp_path: Path,
    result: SearchResult,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page, reloads = tmp_path / "r.html", list[bool]()

    def load_search(name: str, home: Home) -> SearchResult:
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        reloads.append('http-equiv="refresh" content="1"' in text)
        return result

    monkeypatch.setattr(report_command, "samples_of", lambda *arguments: {})
    monkeypatch.setattr(report_command, "recorded_home", lambda options: Home.of(options.home))
    monkeypatch.setattr(report_command, "load_search", load_search)
    monkeypatch.setattr(report_command, "is_running", lambda folder: len(reloads) < 2)
    given = ["--search", "lm-7", "--home", str(tmp_path / "home"), "-o", str(page)]
    assert main(["report", *given, "--watch", "1s"]) == 0
    assert reloads == [False, True, True], "at first, again, and when the search has ended"
    assert "refresh" not in page.read_text(encoding="utf-8").partition("<style>")[0]
    assert "made-up-1 has ended" in capsys.readouterr().err
