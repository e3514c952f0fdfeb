"""The configuration of one trial as a search-space file without a search: `tuner show --yaml`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from model.spec.hyperparameters import SYMBOL_TABLE, Hyperparameters
from model.spec.trial import TrialSpec
from tuner.errors import SpaceError
from tuner.journal.fold import Search
from tuner.space.parameter import symbol
from tuner.space.space import SearchSpace
from tuner.space_file.load import read_space
from tuner.texts.formatting import metric_text, short_hash
from tuner.trained.recorded_trials import RecordedTrial

_WORD = re.compile(r"[A-Za-z_][\w-]*")
_YAML_1_1 = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}  # words that are no texts
# A budget sets one of the two, and the other one follows; a space names neither, or one.
_LENGTHS = ("total_steps", "epochs")
_SEEDS = 2**32  # of a space; retrainings have larger ones


@dataclass(frozen=True)
class TrialConfiguration:
    """Settings of a recorded trial, to be used elsewhere.

    Attributes:
        trial: the trial.
    """

    trial: RecordedTrial

    @property
    def spec(self) -> TrialSpec:
        """Specification of the trial."""
        return self.trial.spec

    @property
    def name(self) -> str:
        """Name for a space, a file or a folder: `lm-1-3`."""
        return f"{self.trial.search.name[:56]}-{self.trial.record.number}"

    @property
    def title(self) -> str:
        """Sentence on the trial: its search, its objective, its hash."""
        search, record = self.trial.search, self.trial.record
        metric = search.metric
        loss = f"{metric} {metric_text(record.loss(metric))}, " if record.metrics else ""
        return (
            f"Trial {record.number} of {search.name} ({loss}{record.status}), spec "
            f"{short_hash(self.spec.hash)}."
        )

    def yaml(self) -> str:
        """Return the text of a space with these settings alone; a search of it is one trial."""
        journal = self.trial.journal
        rows = {
            p.name: self.spec.value_of(p.name)
            for p in journal.space.hyperparameters.values()
            if journal.space.is_drawn(p, self.trial.trial.draw)
        }
        text = self._text(rows)
        try:
            space, _ = read_space(f"{self.name}.yaml", text=text)
            missing = _differing(_first_spec(space, journal).hyperparameters, self.spec)
            if missing:
                text = self._text(rows | missing)
                space, _ = read_space(f"{self.name}.yaml", text=text)
            note = _verdict(_first_spec(space, journal), self.spec)
        except SpaceError as error:
            note = f"It was not compared with the trial: {error.mistakes[0].message}"
        return f"# {self.title}\n# {note}\n{text}"

    def _text(self, rows: Mapping[str, Any]) -> str:
        space, spec = self.trial.journal.space, self.spec
        model = {
            p.name: spec.value_of(p.name)
            for p in space.model.values()
            if space.is_drawn(p, self.trial.trial.draw)
        }
        lines = [f"name: {self.name}", f"data: {_flow(_changed(space.data))}"]
        sections = {
            "tokenizer": _changed(space.tokenizer),
            "init_from": _changed(space.init_from) if space.init_from else {},
            "model": model,
            "proxy": _changed(space.proxy) if space.proxy else {},
        }
        lines += [f"{name}: {_flow(entries)}" for name, entries in sections.items() if entries]
        symbols = {symbol(name): rows[name] for name in SYMBOL_TABLE if name in rows}
        lines += ["hyperparameters:"] if symbols else []
        lines += [f"  {name}: {_scalar(value)}" for name, value in symbols.items()]
        lines += [
            f"budget: {_flow(self._budget())}",
            f"engine: {_flow({'micro_batch': spec.micro_batch})}",
            f"search: {_flow({'trials': 1, 'scheduler': 'none', 'seed': self._seed})}",
            "confirm: off",
            f"objective: {_flow({'metric': space.objective.metric})}",
        ]
        return "\n".join(lines) + "\n"

    @property
    def _seed(self) -> int:
        """The trial's seed, or that of its search if it is one of a retraining."""
        return self.spec.seed if self.spec.seed < _SEEDS else self.trial.journal.space.search.seed

    def _budget(self) -> dict[str, Any]:
        """Return the budget of this trial: of several ones, the one that it trained for."""
        budget, spec = self.trial.journal.space.budget, self.spec
        entries = _changed(budget)
        if budget.shorter and budget.tokens is not None:
            steps = spec.hyperparameters.total_steps
            ends = (*budget.shorter, budget.tokens)
            tokens = next((n for n in ends if -(-n // spec.tokens_per_step) >= steps), ends[-1])
            entries |= {"tokens": tokens, "reports": max(1, round(tokens / spec.report_tokens))}
            del entries["shorter"]
        return entries


def _changed(section: BaseModel) -> dict[str, Any]:
    """Return the entries of a section that are not the defaults."""
    return section.model_dump(mode="json", exclude_defaults=True)


def _first_spec(space: SearchSpace, journal: Search) -> TrialSpec:
    """Return the specification of the only trial of a space, on the data of a search."""
    return space.spec(space.defaults(), journal.facts, space.search.seed)


def _differing(rows: Hyperparameters, spec: TrialSpec) -> dict[str, Any]:
    """Return the rows of a trial that a space does not give yet."""
    names = (name for name in SYMBOL_TABLE if name not in _LENGTHS)
    return {
        name: spec.value_of(name)
        for name in names
        if getattr(rows, name) != getattr(spec.hyperparameters, name)
    }


def _verdict(mine: TrialSpec, spec: TrialSpec) -> str:
    """Return whether a specification is that of a trial, and why it is another one."""
    if mine.hash == spec.hash:
        return "A search of this file trains this trial again: the specifications are equal."
    if spec.continues is not None:
        return (
            "The trial copied another one in training; a search of this file begins at update 0, "
            "so its numbers differ."
        )
    fields = [name for name in TrialSpec.model_fields if getattr(mine, name) != getattr(spec, name)]
    return f"A search of this file trains a similar trial: other {', '.join(fields)}."


def _flow(entries: Mapping[str, Any]) -> str:
    return f"{{{', '.join(f'{key}: {_scalar(value)}' for key, value in entries.items())}}}"


def _scalar(value: Any) -> str:
    """Return a value as YAML, with all digits of a number."""
    if isinstance(value, str) and _WORD.fullmatch(value) and value.lower() not in _YAML_1_1:
        return value
    return json.dumps(value, ensure_ascii=False)
