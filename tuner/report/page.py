"""Report as one HTML file that works without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

import tuner
from tuner.control_characters import visible
from tuner.report import captions, figures, matters
from tuner.report.axes import slices
from tuner.report.contents import about, commands, environment, headline, table, tiles, winners
from tuner.report.palette import css_variables, dark_colours
from tuner.report.parallel import WIDTH_EACH, parallel
from tuner.report.scale import collapse, compute, sensitivity
from tuner.report.series import ReportData
from tuner.report.shares import Shares, shares_of
from tuner.results.result import SearchResult
from tuner.results.sentences import summary_sentences

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class Picture:
    """One plot of the page.

    Attributes:
        key: id of the element.
        title: title above the plot.
        caption: text below the plot.
        figure: figure of Plotly.
        min_width: pixels; on a narrower screen the plot scrolls sideways. 0 for no limit.
    """

    key: str
    title: str
    caption: str
    figure: Figure
    min_width: int = 0

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.figure.layout.height)


def html_of(
    result: SearchResult,
    samples: Mapping[int, str] | None = None,
    reload_seconds: int | None = None,
) -> str:
    """Return the page as text; for the arguments see `write_report`."""
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
    plots = [picture for pictures in sections.values() for picture in pictures]
    heads, rows = table(series)
    light, dark = css_variables()
    return (
        _templates()
        .get_template("report.html")
        .render(
            result=result,
            reload_seconds=reload_seconds,
            version=tuner.__version__,
            about=about(result),
            headline=headline(series),
            tiles=tiles(series),
            sentences=summary_sentences(result),
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
            figures=_embedded({p.key: json.loads(_json(p.figure)) for p in plots}),
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
    """Return the ids and titles of the sections, for navigation."""
    titles = {
        "confirmation": ("Confirmed", sections["confirmed"]),
        "went": ("Progress", sections["progress"] or sections["curves"]),
        "matters": ("Importance", True),
        "slices": ("Parameters", sections["slices"]),
        "samples": ("Samples", samples),
        "trials": ("All trials", True),
        "print": ("Details", True),
    }
    return [(key, title) for key, (title, has_content) in titles.items() if has_content]


def _templates() -> jinja2.Environment:
    """Return the templates of the page, which escape every text and show its controls."""
    loader = jinja2.PackageLoader("tuner.report", "page")
    templates = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals["inlined"] = lambda name: Markup(loader.get_source(templates, name)[0])
    return templates


def _visible(value: Any) -> Any:
    """Return JSON with its control characters shown; other values, such as Markup, unchanged."""
    if isinstance(value, dict):
        return {_visible(key): _visible(item) for key, item in value.items()}
    if isinstance(value, list):
        return list(map(_visible, value))
    return visible(value) if type(value) is str else value


def _json(figure: Figure) -> str:
    text: str = figure.to_json(validate=False)
    return text


def _embedded(value: Any) -> Markup:
    """Return JSON that cannot end the script element that contains it."""
    text = json.dumps(_visible(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, code in (("&", "0026"), ("<", "003c"), (">", "003e")):
        text = text.replace(character, f"\\u{code}")
    return Markup(text)


def _samples(
    result: SearchResult, samples: Mapping[int, str] | None
) -> list[tuple[int, bool, str]]:
    """Return the number of each trial, True for the winner, and its text, in the given order."""
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
    pictures = [
        Picture(
            "best-tokens", "Best so far, by tokens", captions.best_so_far(best, series),
            figures.best_so_far(best, series, by_time=False),
        )
    ]  # fmt: skip
    if best.seconds is not None:
        pictures.append(
            Picture(
                "best-time", "Best so far, by time", captions.by_time(best.seconds),
                figures.best_so_far(best, series, by_time=True),
            )
        )  # fmt: skip
    return pictures


def _curves(series: ReportData, winner: int | None) -> list[Picture]:
    pictures = []
    if any(curve.tokens for curve in series.curves):
        caption = captions.curves(series, winner)
        figure = figures.curves(series, winner)
        pictures.append(Picture("curves", f"{series.metric} of every trial", caption, figure))
    found = compute.compute_of(series)
    if found is not None:
        caption, figure = (
            compute.caption(found, series.metric),
            compute.figure(found, series.metric),
        )
        pictures.append(Picture("compute", f"{series.metric} against compute", caption, figure))
    for band in collapse.collapses_of(series):
        caption = collapse.caption(band, series.metric)
        figure = collapse.figure(band, series.metric)
        title = f"Collapsed curves, {band.schedule}"
        pictures.append(Picture(f"collapse-{band.key}", title, caption, figure))
    if series.rungs:
        caption, figure = captions.rungs(series), figures.rungs(series.rungs)
        pictures.append(Picture("rungs", "Trials at each report", caption, figure))
    return pictures


def _confirmed(series: ReportData) -> list[Picture]:
    result, confirmation = series.result, series.result.confirmation
    if confirmation is None or not any(entry.count for entry in confirmation.ranked):
        return []
    selected = {trial.number: trial.objective(series.metric) for trial in series.trials}
    return [
        Picture(
            "confirmed", "Retrained configurations",
            captions.confirmed(confirmation, result.metric),
            figures.confirmed(confirmation, selected, result.metric),
        )
    ]  # fmt: skip


def _matters(series: ReportData, shares: Shares, winner: int | None) -> list[Picture]:
    pictures = []
    if shares.bars:
        caption = captions.importances(shares, series.metric)
        title = "Importance of parameters"
        pictures.append(Picture("importance", title, caption, matters.importances(shares)))
    found, budget = sensitivity.basins_of(series)
    if found and winner is not None:
        caption = sensitivity.caption(found, series, budget)
        figure = sensitivity.figure(found, series)
        pictures.append(Picture("sensitivity", "Loss against learning rate", caption, figure))
    searched = series.result.space.searched
    if searched and any(curve.values for curve in series.curves):
        pictures.append(
            Picture(
                "parallel", "All parameters at once", captions.parallel(series),
                parallel(series, winner), WIDTH_EACH * (len(searched) + 1),
            )
        )  # fmt: skip
    return pictures


def _slices(series: ReportData, winner: int | None) -> list[Picture]:
    return [
        Picture(f"slice-{i}", s.axis.full_title, "", matters.slice_of(s, series, winner))
        for i, s in enumerate(slices(series)) if s.points
    ]  # fmt: skip
