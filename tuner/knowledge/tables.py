"""Tables of trials that other tools wrote: CSV files, and studies of Optuna.

A CSV file has a column for each parameter, named by a name or symbol of `tuner symbols`, and the
columns of the metric, `tokens` and `weights`: training tokens and number of weights of the trial.
An empty cell is a parameter that the trial did not have; a loss of `inf` is a trial that diverged.

A study is a database, `sqlite:///study.db`, or a journal file, `study.log`; `::NAME` behind the
place names one of several studies. `tokens` and `weights` are user attributes of the trials or the
study.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pydantic import TypeAdapter, ValidationError

from model.files import read_regular
from model.spec.hyperparameters import SYMBOL_TABLE, Hyperparameters, find_symbol
from tuner.errors import TunerError
from tuner.knowledge.evidence import Evidence
from tuner.knowledge.settings import SETTINGS, places
from tuner.space.objective import MODES
from tuner.space.parameter import Value
from tuner.space.proposals import SourceUsed
from tuner.space_file.symbols import MODEL_ENTRIES
from tuner.space_file.yaml_file import whole_if_equal
from tuner.texts.formatting import counted, did_you_mean, listed, shown

if TYPE_CHECKING:
    import optuna

_MOST_BYTES, _MOST_ROWS = 64 * 2**20, 100_000
_SIZES = ("tokens", "weights")
_FIX = "name the columns as 'tuner symbols' does, and give tokens, weights and the metric"


@dataclass(frozen=True)
class TableRow:
    """A trial of a table.

    Attributes:
        parameters: Python name → value, of the parameters that the trial had.
        loss: value of the metric at the end; infinity if the trial diverged.
        tokens: training tokens.
        weights: number of weights of the model.
    """

    parameters: Mapping[str, Value]
    loss: float
    tokens: int
    weights: int


@dataclass(frozen=True)
class ForeignTrials:
    """The trials of a table, and what was left out of it, one sentence each."""

    source: SourceUsed
    rows: tuple[TableRow, ...]
    left_out: tuple[str, ...] = ()

    @property
    def evidence(self) -> Evidence:
        """The trials as evidence, on a text of their own; settings without a column are usual ones.

        Raises:
            TunerError: if a column is missing without which a trial says nothing.
        """
        place = self.source.name
        rows = [_settings(place, row) for row in self.rows]
        sizes = [[row.weights, row.tokens, row.weights] for row in self.rows]
        return Evidence(
            np.array([places(row) for row in rows]),
            np.log(sizes),
            np.array([f"{place} {row.weights} {row.tokens}" for row in self.rows]),
            np.array([place] * len(rows)),
            np.array([row.loss for row in self.rows]),
        )


def read_table(place: str, metric: str = "val_loss") -> ForeignTrials:
    """Read the trials of a CSV file or of a study.

    Args:
        place: path or URL, as in `search.learn_from`.
        metric: objective of the search that learns.

    Raises:
        TunerError: if there is no such table, or it cannot be used.
    """
    if place.endswith(".csv"):
        header, rows, digest = _csv_rows(place)
    else:
        header, rows, digest = _study_rows(place, metric)
    columns, unknown = _columns(place, header, metric)
    trials = tuple(_row(f"{place}, {where}", columns, cells, metric) for where, cells in rows)
    if not trials:
        raise TunerError(f"{place} has no finished trial; give another source")
    names = ", ".join(unknown)
    verb = "is no parameter" if len(unknown) == 1 else "are no parameters"
    left_out = (f"columns of {place} were left out: {names} {verb}",) if unknown else ()
    return ForeignTrials(SourceUsed(place, "table", digest, len(trials)), trials, left_out)


def _settings(place: str, row: TableRow) -> tuple[float, ...]:
    """Return the values of a trial in the order and the units of `SETTINGS`."""
    given = {n: float(v) for n, v in row.parameters.items() if not isinstance(v, str)}
    rate = given.get("max_learning_rate", given.get("learning_rate"))
    for name, value in (("α_max", rate), ("B", given.get("batch_size"))):
        if not value:
            raise TunerError(f"{place} has a trial without {name}, which says nothing; {_FIX}")
    if "context_length" not in given:
        raise TunerError(
            f"{place} has a trial without context_length, by which B counts tokens; add the column"
        )
    assert rate is not None
    batch = given["batch_size"] * given["context_length"]
    values = {setting.name: setting.level[0] for setting in SETTINGS} | {
        name: given[name]
        for name in ("weight_decay", "beta2", "beta1", "grad_clip")
        if name in given
    }
    values |= {"max_learning_rate": rate, "batch_size": batch}
    if "warmup_steps" in given:
        values["warmup_steps"] = min(1.0, given["warmup_steps"] * batch / row.tokens)
    if "min_learning_rate" in given:
        values["min_learning_rate"] = given["min_learning_rate"] / rate
    return tuple(values[setting.name] for setting in SETTINGS)


# CSV ----------------------------------------------------------------------------------------------

_Cells = Mapping[str, Any]  # column → value or text
_Rows = Sequence[tuple[str, _Cells]]  # place of a row in words, and its cells


def _csv_rows(place: str) -> tuple[Sequence[str], _Rows, str]:
    """Return columns, rows and digest of a CSV file."""
    path = Path(place)
    if not path.is_file():
        raise TunerError(f"there is no file {place} to learn from; check search.learn_from")
    if path.stat().st_size > _MOST_BYTES:
        most = f"{_MOST_BYTES // 2**20} MiB"
        raise TunerError(f"{place} is larger than {most}; keep one row for each trial")
    content = read_regular(path)
    try:
        reader = csv.DictReader(content.decode("utf-8-sig").splitlines(), strict=True)
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        rows = [(f"line {reader.line_num}", row) for row in _limited(place, reader)]
    except UnicodeDecodeError as error:
        raise TunerError(f"{place} is no text in UTF-8; write it as CSV") from error
    except csv.Error as error:
        raise TunerError(f"{place} is no CSV file: {error}") from error
    for where, row in rows:
        if None in row or None in row.values():
            count = counted(len(header), "cell")
            raise TunerError(f"{place}, {where}: the row must have {count}, as the first line")
    return header, rows, sha256(content).hexdigest()


def _limited(place: str, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows):
        if number == _MOST_ROWS:
            raise TunerError(f"{place} has more than {_MOST_ROWS:,} rows; keep the finished trials")
        yield row


# Optuna -------------------------------------------------------------------------------------------


def _study_rows(place: str, metric: str) -> tuple[Sequence[str], _Rows, str]:
    """Return columns, rows and digest of the finished trials of a study."""
    from optuna.trial import TrialState

    study = _study(place)
    if len(study.directions) > 1:
        raise TunerError(f"{place} has several objectives; give a study of {metric} alone")
    names = study.metric_names
    if names and names[0] != metric:
        _refuse_metric(place, names[0], metric)
    if study.direction.name.lower()[:3] != MODES.get(metric, "min"):
        raise TunerError(f"{place} has another direction than {metric}; give a study of {metric}")
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(trials) > _MOST_ROWS:
        raise TunerError(f"{place} has more than {_MOST_ROWS:,} trials; give a smaller study")
    common = {name: study.user_attrs[name] for name in _SIZES if name in study.user_attrs}
    rows: list[tuple[str, dict[str, Any]]] = []
    for trial in trials:
        sizes = {name: trial.user_attrs[name] for name in _SIZES if name in trial.user_attrs}
        cells = {**trial.params, **common, **sizes, metric: trial.value}
        rows.append((f"trial {trial.number}", cells))
    if not rows:
        raise TunerError(f"{place} has no finished trial; give another source")
    header = list(dict.fromkeys(name for _, cells in rows for name in cells))
    text = json.dumps([cells for _, cells in rows], sort_keys=True, default=str)
    return header, rows, sha256(text.encode()).hexdigest()


def _study(place: str) -> optuna.Study:
    """Open the study of a place, which is never made.

    Raises:
        TunerError: if there is none, or it cannot be read.
    """
    import optuna
    from optuna.exceptions import OptunaError
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    where, _, name = place.partition("::")
    path = where.removeprefix("sqlite:///") if where.startswith("sqlite:///") else where
    if ("://" not in where or path != where) and not Path(path).is_file():
        raise TunerError(f"there is no file {path} to learn from; check search.learn_from")
    if where.endswith(".db") and "://" not in where:
        where = f"sqlite:///{where}"
    try:
        storage = (
            RDBStorage(where, skip_table_creation=True)
            if "://" in where
            else JournalStorage(JournalFileBackend(where))
        )
        studies = optuna.get_all_study_names(storage)
        if not name and len(studies) == 1:
            name = studies[0]
        if name in studies:
            return optuna.load_study(study_name=name, storage=storage)
    except (SQLAlchemyError, OptunaError, ImportError, OSError, KeyError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TunerError(f"{where} cannot be read as a study of Optuna: {reason}") from error
    if not studies:
        raise TunerError(f"{where} has no study of Optuna; check search.learn_from")
    if name:
        raise TunerError(f"{where} has no study {name}{did_you_mean(name, studies)}")
    some = listed(studies[:5], "and") + (" and others" if len(studies) > 5 else "")
    raise TunerError(f"{where} has several studies, {some}; write {where}::{studies[0]}")


# rows ---------------------------------------------------------------------------------------------


def _columns(place: str, header: Sequence[str], metric: str) -> tuple[dict[str, str], list[str]]:
    """Return column → Python name, and the columns that are no parameters.

    Raises:
        TunerError: if a column is missing or given twice, or the metric is another one.
    """
    columns: dict[str, str] = {}
    unknown = []
    for column in header:
        symbol = find_symbol(column)
        name = symbol.name if symbol else column
        if symbol is None and column not in (*MODEL_ENTRIES, *_SIZES, metric):
            unknown.append(column)
            continue
        if name in columns.values():
            raise TunerError(f"{place} has two columns of {name}, one is {column}; keep one")
        columns[column] = name
    if metric not in columns:
        other = next((column for column in unknown if column in MODES or "loss" in column), None)
        if other is not None:
            _refuse_metric(place, other, metric)
    for name in (metric, *_SIZES):
        if name not in columns.values():
            raise TunerError(f"{place} has no column {name}; {_FIX}")
    if not set(columns.values()) - {metric, *_SIZES}:
        raise TunerError(f"{place} has no column of a parameter; {_FIX}")
    return columns, unknown


def _refuse_metric(place: str, other: str, metric: str) -> None:
    what = "another metric" if other in MODES else "a metric that tuner does not know"
    raise TunerError(
        f"{place} has {shown(other)}, {what}, and not {metric}, the objective of the search; give "
        f"a table of {metric}"
    )


def _row(where: str, columns: Mapping[str, str], cells: _Cells, metric: str) -> TableRow:
    """Return a row with the type of each value.

    Raises:
        TunerError: if a cell has no possible value.
    """
    numbers, parameters = dict[str, float](), dict[str, Value]()
    for column, name in columns.items():
        cell = cells.get(column, "")
        cell = cell.strip() if isinstance(cell, str) else cell
        if name in (metric, *_SIZES):
            numbers[name] = _number(where, column, cell)
        elif cell != "":
            parameters[name] = _value(where, column, name, cell)
    if math.isnan(numbers[metric]):
        fix = "leave the trial out, or write inf if it diverged"
        raise TunerError(f"{where}: {metric} is not a number (nan); {fix}")
    for name in _SIZES:
        if not (numbers[name] >= 1 and numbers[name].is_integer()):
            value = shown(numbers[name])
            raise TunerError(f"{where}: {name} must be a whole number above 0, got {value}")
    tokens, weights = (int(numbers[name]) for name in _SIZES)
    return TableRow(parameters, numbers[metric], tokens, weights)


def _number(where: str, column: str, cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError) as error:
        got = shown(cell) if cell != "" else "nothing"
        raise TunerError(f"{where}: {column} must be a number, got {got}") from error


def _value(where: str, column: str, name: str, cell: Any) -> Value:
    """Return the value of a parameter."""
    field = (Hyperparameters.model_fields if name in SYMBOL_TABLE else MODEL_ENTRIES)[name]
    try:
        number = whole_if_equal(float(cell)) if not isinstance(cell, bool) else cell
    except (TypeError, ValueError):
        number = cell
    if isinstance(number, float) and not math.isfinite(number):
        raise TunerError(f"{where}: {column} must be a finite number, got {shown(cell)}")
    try:
        return cast(Value, TypeAdapter(cast(Any, field.annotation)).validate_python(number))
    except ValidationError as error:
        raise TunerError(f"{where}: {column} cannot be {shown(cell)}") from error
