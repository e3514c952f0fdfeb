"""What pages show of searches and trials, in the words and numbers of the report."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from tuner.serve.views import SearchView


class ChangesView(BaseModel):
    """Searches that have changed.

    Attributes:
        searches: the searches, the newest first.
        gone: names of those that were deleted, or may no longer be seen.
        is_all: True if there are no others.
    """

    searches: list[SearchView]
    gone: list[str]
    is_all: bool


class TileView(BaseModel):
    """One number of the answer: its title, the number, a note, and whether it is the winner's."""

    title: str
    number: str
    note: str
    is_winner: bool


class WinnerRow(BaseModel):
    """A searched parameter: its symbol, its name, the values of winner and defaults, its range."""

    symbol: str
    name: str
    best: str
    defaults: str
    range: str


class WinnersView(BaseModel):
    """The hyperparameters of the best trial beside the defaults."""

    number: int
    is_defaults: bool
    has_defaults: bool
    rows: list[WinnerRow]


class ValuesView(BaseModel):
    """The values that an axis of the objective shows; bad outliers are outside of it."""

    low: float
    high: float
    is_log: bool


class SummaryView(BaseModel):
    """The answer of a search, as of an event of its journal.

    Attributes:
        headline: the answer in one line.
        about: status, trials, sampler, scheduler, seed, start.
        tiles: its main numbers.
        sentences: gain, confirmation, what is left, cost, endings.
        advice: recommendations for the next search.
        winners: hyperparameters of the best trial; None for several objectives.
        environment: facts of machine, data and winner.
        metric: name of the objective's metric.
        is_lower_better: True if small values are good.
        best: number of the best trial; None before the first report.
        defaults: number of the trial with the defaults; None if there is none.
        num_places: number of reports of a complete trial.
        values: what an axis of the objective shows; None without values.
        num_events: number of events of the journal so far.
        problem: why there is no answer.
    """

    headline: str
    about: list[str] = Field(default_factory=list)
    tiles: list[TileView] = Field(default_factory=list)
    sentences: list[str] = Field(default_factory=list)
    advice: list[str] = Field(default_factory=list)
    winners: WinnersView | None = None
    environment: list[tuple[str, str]] = Field(default_factory=list)
    metric: str = ""
    is_lower_better: bool = True
    best: int | None = None
    defaults: int | None = None
    num_places: int = 0
    values: ValuesView | None = None
    num_events: int = 0


class TrialRow(BaseModel):
    """Row of the table of trials.

    Attributes:
        number: number of the trial.
        ending: `finished`, `stopped`, `diverged` or `unfinished`.
        is_winner: True for the best trial, or those on the Pareto front.
        texts: text of each cell.
        keys: number by which each cell is sorted; None for texts, and where there is no value.
    """

    number: int
    ending: str
    is_winner: bool
    texts: list[str]
    keys: list[float | None]


class TrialsView(BaseModel):
    """The table of trials.

    Attributes:
        heads: titles of the columns.
        are_numbers: True for each column of numbers.
        rows: the trials by number, those that confirm others last; those that changed, if asked.
        newest: time of the newest event, in milliseconds since the epoch; for `since`.
    """

    heads: list[str]
    are_numbers: list[bool]
    rows: list[TrialRow]
    newest: int


class PictureView(BaseModel):
    """A picture of the report: a figure of Plotly in the colours of the light theme.

    Attributes:
        key: id of the picture.
        title: title above it.
        caption: text below it.
        height: height in pixels.
        min_width: width in pixels below which it scrolls sideways; 0 for none.
        figure: data and layout as Plotly takes them.
    """

    key: str
    title: str
    caption: str
    height: int
    min_width: int
    figure: dict[str, Any]


class PicturesView(BaseModel):
    """The pictures of a search by section of the report, as of an event of its journal.

    Attributes:
        sections: section → pictures.
        slices_caption: caption of all slices.
        no_shares: why there are no importances; None if there are.
        dark: dark counterpart of each light colour.
        num_events: number of events of the journal so far.
    """

    sections: dict[str, list[PictureView]]
    slices_caption: str = ""
    no_shares: str | None = None
    dark: dict[str, str] = Field(default_factory=dict)
    num_events: int = 0


class ParameterView(BaseModel):
    """A hyperparameter of a trial: symbol, name, value, and its range if it was searched."""

    symbol: str
    name: str
    value: str
    range: str


class TrialReport(BaseModel):
    """A report of a trial: update, tokens, time in milliseconds since the epoch, metrics."""

    step: int
    tokens: int
    time: int | None
    metrics: dict[str, float | None]


class TrialView(BaseModel):
    """A trial.

    Attributes:
        number: number of the trial.
        search: name of its search.
        outcome: how it ended, or `in training` or `paused`.
        ending: `finished`, `stopped`, `diverged` or `unfinished`.
        is_best: True for the best trial of the search.
        metric: name of the objective's metric.
        value: newest value of the objective; None if it is not finite.
        parent: number of the trial whose checkpoint it continues from.
        confirms: number of the trial that it repeats with a fresh seed.
        place: number of its newest report.
        num_places: number of reports of the complete budget.
        tokens: training tokens so far.
        budget_tokens: training tokens of the complete budget.
        searched: the searched hyperparameters.
        others: all other hyperparameters and sizes of the model.
        facts: hash of its specification, weights, seed, data, tokenizer, device.
        reports: its reports.
        metrics: names of the metrics that its reports have.
        numbers: numbers of all trials of the search.
        has_weights: True if its weights were kept.
        can_write: True if it writes texts; a model with an encoder needs a source.
        num_events: number of events of the journal so far.
    """

    number: int
    search: str
    outcome: str
    ending: str
    is_best: bool
    metric: str
    value: float | None
    parent: int | None
    confirms: int | None
    place: int
    num_places: int
    tokens: int
    budget_tokens: int
    searched: list[ParameterView]
    others: list[ParameterView]
    facts: list[tuple[str, str]]
    reports: list[TrialReport]
    metrics: list[str]
    numbers: list[int]
    has_weights: bool
    can_write: bool
    num_events: int
