"""Registers the best trial of each finished search under the name of its space.

A version of a registered model has the model (`pyfunc`), its facts (tags) and its card
(`model_card`). Equal weights are one version, even if their search is resumed, sent again or
repeated. The alias `champion` names the best version by the rule `model_card.RULE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from model.checkpoints.checkpoint import digest
from model.errors import CheckpointError, CorpusError
from tuner.errors import RecordError, StoreError
from tuner.home.home import Home
from tuner.publish import pyfunc
from tuner.publish.model_card import RULE, confirmed_of, model_card
from tuner.results.result import SearchResult
from tuner.space.objective import sign_of
from tuner.tracking.store import reason_of, store_errors
from tuner.tracking.tags import Tag
from tuner.trained.load_trial import TrainedTrial, kept_trial
from tuner.trained.recorded_trials import RecordedTrials

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
_WEIGHTS = "weights_sha256"
# Two values are compared only if all these tags are equal.
_MEASURE = ("metric", Tag.DATA, Tag.TOKENIZER, "context_length", "validation_sequences")


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model.

    Attributes:
        name: name of the model.
        version: number of the version, counted from 1.
        is_new: True if this call created it.
        is_champion: True if it is the champion.
    """

    name: str
    version: int
    is_new: bool
    is_champion: bool

    @property
    def description(self) -> str:
        """Description for the user, as `version 2 of lm, its champion`."""
        version = f"version {self.version} of {self.name}"
        return f"{version}, its champion" if self.is_champion else version


def register(home: Home, result: SearchResult) -> RegisteredVersion | None:
    """Register the best trial of a finished search as a version of its space's model, once.

    Args:
        home: home of the search.
        result: result of the search.

    Returns:
        The version; None if the weights are not kept, which can happen for older searches.

    Raises:
        StoreError: if the store refuses it; the call can be repeated.
    """
    try:
        with store_errors(home.tracking_uri):
            return _Registry(home, result).register()
    except (StoreError, RecordError, CheckpointError, CorpusError) as error:
        raise StoreError(
            f"the model of {result.name} is not registered: {reason_of(error)}; "
            f"'tuner sync {result.name}' registers it later"
        ) from error


class _Registry:
    """Registers the result of a search among the versions of its space."""

    def __init__(self, home: Home, result: SearchResult) -> None:
        self._result, self._name = result, result.space.name
        self._trials = RecordedTrials.of(home)
        self._client: MlflowClient = self._trials.record.client
        self._run_id = result.run_ids[result.best.number]

    def register(self) -> RegisteredVersion | None:
        # the step too: if the trial has continued, its earlier version has other weights
        same_trial = f"run_id = '{self._run_id}' and tags.step = '{self._result.best.step}'"
        version, is_new = self._version(same_trial), False
        if version is not None:  # a resumed search may have new results
            self._describe(version)
        else:
            trained = kept_trial(self._trials, self._trials.find(self._run_id))
            if trained is None:
                return None
            weights = digest(trained.weights)
            version = self._version(f"tags.{_WEIGHTS} = '{weights}'")
            if version is None:
                version, is_new = self._create(trained, weights), True
                note = model_card(self._result)  # also on the page of the search
                self._client.set_tag(self._result.run_id, Tag.NOTE, note)
        is_champion = self._choose(version)
        return RegisteredVersion(self._name, int(version.version), is_new, is_champion)

    def _version(self, condition: str) -> ModelVersion | None:
        """Return the first version of the space that meets a condition."""
        versions = self._client.search_model_versions(f"name = '{self._name}' and {condition}")
        return min(versions, key=lambda version: int(version.version), default=None)

    # create a version ---------------------------------------------------------------------------

    def _create(self, trained: TrainedTrial, weights: str) -> ModelVersion:
        from mlflow.entities import LoggedModelStatus

        logged = self._logged_model()
        if logged.status != LoggedModelStatus.READY:
            with TemporaryDirectory() as folder:
                pyfunc.save(Path(folder), trained, logged.model_id)
                self._client.log_model_artifacts(logged.model_id, folder)
            self._link(logged.model_id)
            self._client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        self._create_model()
        # the source is a path: for models:/… a registry in a database would search the store of
        # MLflow's global setting instead of ours
        return self._client.create_model_version(
            self._name,
            source=logged.artifact_location,
            run_id=self._run_id,
            model_id=logged.model_id,
            tags={**self._tags(), _WEIGHTS: weights},
            description=model_card(self._result),
        )

    def _logged_model(self) -> LoggedModel:
        """Return the logged model of an earlier, interrupted attempt, or a new one."""
        earlier = self._client.search_logged_models(
            [self._result.experiment_id], filter_string=f"source_run_id = '{self._run_id}'"
        )
        best = self._result.best
        for logged in earlier:
            if logged.tags.get("step") == str(best.step):
                return logged
        searched = {p.name for p in self._result.space.searched}
        rows, a = best.spec.rows, best.spec.architecture
        return self._client.create_logged_model(
            self._result.experiment_id,
            name=self._name.replace(".", "-"),  # MLflow allows no dots in names of logged models
            source_run_id=self._run_id,
            tags=self._tags(),
            params={
                name: str(rows[name] if name in rows else getattr(a, name))
                for name in sorted(searched)
            },
            model_type="transformer",
        )

    def _link(self, model_id: str) -> None:
        """Link a model to the trial's run and its objectives to the validation data."""
        from mlflow.entities import LoggedModelOutput, Metric

        run, best = self._client.get_run(self._run_id), self._result.best
        if not (run.outputs and run.outputs.model_outputs):  # MLflow accepts each model only once
            self._client.log_outputs(self._run_id, [LoggedModelOutput(model_id, best.step)])
        inputs = run.inputs.dataset_inputs if run.inputs else []
        held_out = [i.dataset for i in inputs if "validation" in {tag.value for tag in i.tags}]
        data = (held_out[0].name, held_out[0].digest) if held_out else (None, None)
        names = {o.metric for o in self._result.space.objectives}
        if best.last is not None and best.times:
            # MLflow does not store these in the run again: the run has equal values
            values = [
                Metric(
                    name, value, best.times[-1], best.step, model_id, data[0], data[1], self._run_id
                )
                for name, value in best.last.metrics().items()
                if name in names
            ]
            self._client.log_batch(self._run_id, values)

    def _create_model(self) -> None:
        """Create the registered model of this space, unless it exists."""
        from mlflow.exceptions import MlflowException

        description = f"The best trials of the searches of the space `{self._name}`. {RULE}"
        with suppress(MlflowException):  # it exists, or creating a version raises the error
            self._client.create_registered_model(self._name, description=description)

    # tags and card --------------------------------------------------------------------------------

    def _tags(self) -> dict[str, str]:
        result, spec = self._result, self._result.best.spec
        confirmed = confirmed_of(result)
        return {
            "search": result.name,
            "trial": str(result.best.number),
            "step": str(result.best.step),
            "run": self._run_id,
            "metric": result.metric,
            "value": repr(result.best.objective(result.metric)),
            **({"confirmed": repr(confirmed.mean)} if confirmed else {}),
            Tag.DATA: spec.data_fingerprint,
            Tag.TOKENIZER: spec.tokenizer_fingerprint,
            Tag.SPEC_HASH: spec.hash,
            "context_length": str(spec.architecture.context_length),
            "validation_sequences": str(spec.validation_sequences),
        }

    def _describe(self, version: ModelVersion) -> None:
        """Update tags and card of this trial's version."""
        tags = self._tags()
        for name, value in tags.items():
            if version.tags.get(name) != value:
                self._client.set_model_version_tag(self._name, version.version, name, value)
        if "confirmed" in version.tags.keys() - tags.keys():  # the resumed search has more trials
            self._client.delete_model_version_tag(self._name, version.version, "confirmed")
        card = model_card(self._result)
        if version.description != card:
            self._client.update_model_version(self._name, version.version, card)

    def _choose(self, version: ModelVersion) -> bool:
        """Move the alias to a version by the rule; return True if the version is the champion."""
        aliases: Mapping[str, Any] = self._client.get_registered_model(self._name).aliases
        current = aliases.get(CHAMPION)
        if current is not None and str(current) != str(version.version):
            champion = self._client.get_model_version(self._name, str(current))
            candidate = self._client.get_model_version(self._name, version.version)
            is_newer = int(version.version) > int(current)
            is_own = version.run_id == self._run_id
            is_own &= champion.tags.get("search") == self._result.name
            if not takes_place(candidate.tags, champion.tags, is_newer=is_newer, is_own=is_own):
                return False
        if str(current) != str(version.version):
            self._client.set_registered_model_alias(self._name, CHAMPION, version.version)
        return True


def takes_place(
    new: Mapping[str, str], current: Mapping[str, str], *, is_newer: bool, is_own: bool
) -> bool:
    """Return True if a version replaces the champion by the rule `model_card.RULE`.

    Args:
        new: tags of the version.
        current: tags of the champion.
        is_newer: True if the version was created after the champion.
        is_own: True if one search found both, the champion before it was resumed.
    """
    if is_own:
        return True
    if any(new.get(name) != current.get(name) for name in _MEASURE):
        return is_newer
    tag = "confirmed" if {"confirmed"} <= new.keys() & current.keys() else "value"
    try:
        value, champion_value = float(new[tag]), float(current[tag])
    except (KeyError, ValueError):  # a user has edited the tags
        return True
    sign = sign_of(new["metric"])
    return sign * value < sign * champion_value
