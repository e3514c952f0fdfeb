"""Pages of pictures, and the report of a search, as one HTML file that works without a network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

import tuner
from tuner.report import confirmed, curves, parallel, progress, shares, slices
from tuner.report.contents import about, commands, environment, headline, table, tiles, winners
from tuner.report.palette import css_variables, dark_colours
from tuner.report.picture import Picture, Section
from tuner.report.scale import collapse, compute, sensitivity
from tuner.report.series import ReportData
from tuner.report.templates import embedded, templates_in
from tuner.results.result import SearchResult
from tuner.results.sentences import summary_sentences


def html_of(
    result: SearchResult,
    samples: Mapping[int, str] | None = None,
    reload_seconds: int | None = None,
) -> str:
    """Return the page of a search as text; for the arguments see `write_report`."""
    series = ReportData(result)
    compared = shares.shares_of(series)
    sections = sections_of(series, compared)
    winner = _winner(result)
    heads, _, rows = table(series)
    return _rendered(
        "report.html",
        [picture for pictures in sections.values() for picture in pictures],
        kind="Report of a search",
        name=result.name,
        title=f"{result.name}: {headline(series)}",
        result=result,
        reload_seconds=reload_seconds,
        about=about(result),
        headline=headline(series),
        tiles=tiles(series),
        sentences=summary_sentences(result),
        winners=winners(series),
        sections=sections,
        slices_caption=slices.caption(series, winner) if sections["slices"] else "",
        no_shares=compared.reason,
        samples=_samples(result, samples),
        heads=heads,
        rows=rows,
        environment=environment(result),
        commands=commands(result),
        contents=_contents(sections, samples),
    )


def html_of_pictures(kind: str, name: str, about: str, sections: Sequence[Section]) -> str:
    """Return a page of pictures only as text; for the arguments see `write_pictures`."""
    return _rendered(
        "pictures.html",
        [picture for section in sections for picture in section.pictures],
        kind=kind,
        name=name,
        title=f"{name}: {about}",
        about=[about],
        sections=sections,
        reload_seconds=None,
    )


def sections_of(series: ReportData, compared: shares.Shares) -> dict[str, list[Picture]]:
    """Return the pictures of a search, by section of the page."""
    winner = _winner(series.result)
    return {
        "progress": progress.fronts(series) if winner is None else progress.best_so_far(series),
        "curves": [
            *curves.pictures(series, winner),
            *compute.pictures(series),
            *collapse.pictures(series),
            *progress.rungs(series),
        ],
        "confirmed": confirmed.pictures(series),
        "matters": [
            *shares.pictures(compared, series.metric),
            *sensitivity.pictures(series),
            *parallel.pictures(series, winner),
        ],
        "slices": slices.pictures(series, winner),
    }


def _winner(result: SearchResult) -> int | None:
    """Return the number of the best trial; None for several objectives."""
    return result.best.number if len(result.space.objectives) == 1 else None


def _rendered(template: str, pictures: Iterable[Picture], **values: Any) -> str:
    """Return a page with its pictures, the script that draws them, and its colours."""
    from plotly.offline import get_plotlyjs

    light, dark = css_variables()
    return (
        templates_in("tuner.report", "page")
        .get_template(template)
        .render(
            version=tuner.__version__,
            plotly=Markup(get_plotlyjs()),
            figures=embedded(
                {p.key: json.loads(p.figure.to_json(validate=False)) for p in pictures}
            ),
            dark=embedded(dark_colours()),
            light_variables=Markup(light),
            dark_variables=Markup(dark),
            **values,
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


def _samples(
    result: SearchResult, samples: Mapping[int, str] | None
) -> list[tuple[int, bool, str]]:
    """Return the number of each trial, True for the winner, and its text, in the given order."""
    winner = _winner(result)
    return [(n, n == winner, text) for n, text in (samples or {}).items()]
