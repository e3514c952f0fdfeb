"""The report as one HTML file, which needs nothing from the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

import tuner
from tuner.report import captions, figures, matters
from tuner.report.axes import slices
from tuner.report.contents import about, commands, environment, headline, table, tiles, winners
from tuner.report.palette import css_variables, dark_colours
from tuner.report.parallel import WIDTH_EACH, parallel
from tuner.report.series import ReportData
from tuner.report.shares import Shares, shares_of
from tuner.results.result import SearchResult
from tuner.results.sentences import summary_sentences

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class Picture:
    """One figure of the page.

    Attributes:
        key: its id.
        title: above it.
        caption: below it: what is to be seen.
        figure: as Plotly has it.
        narrowest: pixels that it needs; on a narrower screen it scrolls sideways. 0: any.
    """

    key: str
    title: str
    caption: str
    figure: Figure
    narrowest: int = 0

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.figure.layout.height)


def html_of(result: SearchResult, samples: Mapping[int, str] | None = None) -> str:
    """The page as text; arguments as of `write_report`."""
    from plotly.offline import get_plotlyjs

    series = ReportData(result)
    shares = shares_of(series)
    winner = result.best.number if len(result.space.objectives) == 1 else None
    sections = {
        "progress": _progress(series, winner),
        "curves": _curves(series, winner),
        "confirmed": _confirmed(series),
        "matters": _matters(series, shares, winner),
        "slices": _slices(series, winner),
    }
    drawn = [picture for pictures in sections.values() for picture in pictures]
    heads, rows = table(series)
    light, dark = css_variables()
    return (
        _templates()
        .get_template("report.html")
        .render(
            result=result,
            version=tuner.__version__,
            about=about(result),
            headline=headline(series),
            tiles=tiles(series),
            told=summary_sentences(result),
            winners=winners(series),
            sections=sections,
            slices_caption=captions.slices_of(series, winner) if sections["slices"] else "",
            no_shares=shares.reason,
            samples=_samples(result, samples),
            heads=heads,
            rows=rows,
            environment=environment(result),
            commands=commands(result),
            plotly=Markup(get_plotlyjs()),
            figures=_embedded({p.key: json.loads(_json(p.figure)) for p in drawn}),
            dark=_embedded(dark_colours()),
            light_variables=Markup(light),
            dark_variables=Markup(dark),
            winner=winner,
            contents=_contents(sections, samples),
        )
    )


def _contents(
    sections: Mapping[str, list[Picture]], samples: Mapping[int, str] | None
) -> list[tuple[str, str]]:
    """What there is to jump to: the ids of the sections, and their names."""
    found = {
        "confirmation": ("Confirmed", sections["confirmed"]),
        "went": ("How it went", sections["progress"] or sections["curves"]),
        "matters": ("What matters", True),
        "slices": ("Parameters", sections["slices"]),
        "samples": ("What they write", samples),
        "trials": ("All trials", True),
        "print": ("The fine print", True),
    }
    return [(key, title) for key, (title, is_there) in found.items() if is_there]


def _templates() -> jinja2.Environment:
    """The files of the page; every text that they are given is escaped."""
    loader = jinja2.PackageLoader("tuner.report.write", "page")
    templates = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals["inlined"] = lambda name: Markup(loader.get_source(templates, name)[0])
    return templates


def _json(drawn: Figure) -> str:
    text: str = drawn.to_json(validate=False)
    return text


def _embedded(value: Any) -> Markup:
    """JSON that cannot end the script that it stands in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, code in (("&", "0026"), ("<", "003c"), (">", "003e")):
        text = text.replace(character, f"\\u{code}")
    return Markup(text)


def _samples(
    result: SearchResult, samples: Mapping[int, str] | None
) -> list[tuple[int, bool, str]]:
    """Trial, whether it is the winner, its text; in the given order."""
    best = result.best.number if len(result.space.objectives) == 1 else None
    return [(n, n == best, text) for n, text in (samples or {}).items()]


# pictures ----------------------------------------------------------------------------------------


def _progress(series: ReportData, winner: int | None) -> list[Picture]:
    if winner is None:
        return [
            Picture(
                f"front-{i}", f"{f.metrics[0]} and {f.metrics[1]}", captions.front(f),
                figures.front(f),
            )
            for i, f in enumerate(series.fronts) if f.points
        ]  # fmt: skip
    best = series.best_so_far
    if best is None:
        return []
    found = [
        Picture(
            "best-tokens", "Best so far, by tokens", captions.best_so_far(best, series),
            figures.best_so_far(best, series, by_time=False),
        )
    ]  # fmt: skip
    if best.seconds is not None:
        found.append(
            Picture(
                "best-time", "Best so far, by time", captions.by_time(best.seconds),
                figures.best_so_far(best, series, by_time=True),
            )
        )  # fmt: skip
    return found


def _curves(series: ReportData, winner: int | None) -> list[Picture]:
    found = []
    if any(curve.tokens for curve in series.curves):
        caption = captions.curves(series, winner)
        drawn = figures.curves(series, winner)
        found.append(Picture("curves", f"{series.metric} of every trial", caption, drawn))
    if series.rungs:
        caption, drawn = captions.rungs(series), figures.rungs(series.rungs)
        found.append(Picture("rungs", "How far trials came", caption, drawn))
    return found


def _confirmed(series: ReportData) -> list[Picture]:
    result, confirmation = series.result, series.result.confirmation
    if confirmation is None or not any(entry.count for entry in confirmation.ranked):
        return []
    selected = {row.number: row.objective(series.metric) for row in series.trials}
    return [
        Picture(
            "confirmed", "The best, trained again",
            captions.confirmed(confirmation, result.metric),
            figures.confirmed(confirmation, selected, result.metric),
        )
    ]  # fmt: skip


def _matters(series: ReportData, shares: Shares, winner: int | None) -> list[Picture]:
    found = []
    if shares.bars:
        caption = captions.importances(shares, series.metric)
        title = "Which parameters matter"
        found.append(Picture("importance", title, caption, matters.importances(shares)))
    searched = series.result.space.searched
    if searched and any(curve.values for curve in series.curves):
        found.append(
            Picture(
                "parallel", "All parameters at once", captions.parallel(series),
                parallel(series, winner), WIDTH_EACH * (len(searched) + 1),
            )
        )  # fmt: skip
    return found


def _slices(series: ReportData, winner: int | None) -> list[Picture]:
    return [
        Picture(f"slice-{i}", s.axis.full_title, "", matters.slice_of(s, series, winner))
        for i, s in enumerate(slices(series)) if s.points
    ]  # fmt: skip
