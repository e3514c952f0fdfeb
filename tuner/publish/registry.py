"""The model registry: the best trial of each finished search, under the name of its space.

A version is the model (`served`), what is known of it (tags), and what to say of it (`model_card`).
The same weights are one version, however often their search is resumed, sent again or repeated.
The alias `champion` names the best version:

    It moves to a new version unless the present one was measured alike (the same metric, data,
    tokenizer, context and validation sequences) and is at least as good: by the means of fresh
    seeds if both have one, otherwise by the values that they were selected by. What training cost
    does not count. It never moves back to an older version that was measured otherwise, and a
    search that goes on replaces its own.
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
from tuner.home import Home
from tuner.publish import pyfunc as served
from tuner.publish.model_card import RULE, confirmed_of, model_card
from tuner.results.result import SearchResult
from tuner.space.objective import sign_of
from tuner.tracking.record import Record
from tuner.tracking.store import reason_of, store_errors
from tuner.tracking.tags import Tag
from tuner.trained.load_trial import TrainedTrial, kept_trial

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
_WEIGHTS = "weights_sha256"
# By what a value was measured; only where all are equal are two values compared.
_MEASURE = ("metric", Tag.DATA, Tag.TOKENIZER, "context_length", "validation_sequences")


@dataclass(frozen=True)
class Registered:
    """A version of a registered model.

    Attributes:
        name: of the model.
        version: its number, counted from 1.
        is_new: whether it was made just now.
        is_champion: whether it is the champion.
    """

    name: str
    version: int
    is_new: bool
    is_champion: bool

    @property
    def words(self) -> str:
        """`version 2 of lm, its champion`."""
        return f"version {self.version} of {self.name}{', its champion' * self.is_champion}"


def register(home: Home, result: SearchResult) -> Registered | None:
    """Make the best trial of a finished search a version of its space's model; once.

    Args:
        home: of the search.
        result: of the search.

    Returns:
        The version; None if the weights were not kept, as those of an earlier search may not be.

    Raises:
        StoreError: if the store does not take it; it can be tried again.
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
    """The versions of one space, and a result that is to be one of them."""

    def __init__(self, home: Home, result: SearchResult) -> None:
        self._home, self._result, self._name = home, result, result.space.name
        self._record = Record(home.tracking_uri)
        self._client: MlflowClient = self._record.client
        self._run_id = result.run_ids[result.best.number]

    def register(self) -> Registered | None:
        # of a trial that went on since, an earlier version has other weights
        same = f"run_id = '{self._run_id}' and tags.step = '{self._result.best.step}'"
        version, is_new = self._version(same), False
        if version is not None:  # a resumed search may know more
            self._describe(version)
        else:
            trained = kept_trial(self._record, self._record.trial(self._run_id), self._home)
            if trained is None:
                return None
            weights = digest(trained.weights)
            version = self._version(f"tags.{_WEIGHTS} = '{weights}'")
            if version is None:
                version, is_new = self._create(trained, weights), True
                note = model_card(self._result)  # on the page of the search as well
                self._client.set_tag(self._result.run_id, Tag.NOTE, note)
        is_champion = self._choose(version)
        return Registered(self._name, int(version.version), is_new, is_champion)

    def _version(self, condition: str) -> ModelVersion | None:
        """The first version of the space for which something holds."""
        found = self._client.search_model_versions(f"name = '{self._name}' and {condition}")
        return min(found, key=lambda version: int(version.version), default=None)

    # a new one ----------------------------------------------------------------------------------

    def _create(self, trained: TrainedTrial, weights: str) -> ModelVersion:
        from mlflow.entities import LoggedModelStatus

        logged = self._logged_model()
        if logged.status != LoggedModelStatus.READY:
            with TemporaryDirectory() as folder:
                served.save(Path(folder), trained, logged.model_id)
                self._client.log_model_artifacts(logged.model_id, folder)
            self._link(logged.model_id)
            self._client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        self._make_room()
        # the artifacts by their place: a registry in a database of this process would look for a
        # models:/ of another store, that of MLflow's global setting
        return self._client.create_model_version(
            self._name,
            source=logged.artifact_location,
            run_id=self._run_id,
            model_id=logged.model_id,
            tags={**self._tags(), _WEIGHTS: weights},
            description=model_card(self._result),
        )

    def _logged_model(self) -> LoggedModel:
        """The one that an earlier attempt began, or a new one."""
        found = self._client.search_logged_models(
            [self._result.experiment_id], filter_string=f"source_run_id = '{self._run_id}'"
        )
        best = self._result.best
        for logged in found:
            if logged.tags.get("step") == str(best.step):
                return logged
        searched = {p.name for p in self._result.space.searched}
        known = {**best.spec.architecture.model_dump(), **best.spec.hyperparameters.model_dump()}
        return self._client.create_logged_model(
            self._result.experiment_id,
            name=self._name.replace(".", "-"),  # which names of logged models cannot have
            source_run_id=self._run_id,
            tags=self._tags(),
            params={name: str(known[name]) for name in sorted(searched)},
            model_type="transformer",
        )

    def _link(self, model_id: str) -> None:
        """Tell MLflow that a model came out of the trial's run, and what was measured on what."""
        from mlflow.entities import LoggedModelOutput, Metric

        run, best = self._client.get_run(self._run_id), self._result.best
        if not (run.outputs and run.outputs.model_outputs):  # MLflow takes each only once
            self._client.log_outputs(self._run_id, [LoggedModelOutput(model_id, best.step)])
        inputs = run.inputs.dataset_inputs if run.inputs else []
        held_out = [i.dataset for i in inputs if "validation" in {tag.value for tag in i.tags}]
        on = (held_out[0].name, held_out[0].digest) if held_out else (None, None)
        names = {o.metric for o in self._result.space.objectives}
        if best.last is not None and best.times:
            # equal to values that the run has, which it therefore does not get twice
            values = [
                Metric(name, value, best.times[-1], best.step, model_id, on[0], on[1], self._run_id)
                for name, value in best.last.metrics().items()
                if name in names
            ]
            self._client.log_batch(self._run_id, values)

    def _make_room(self) -> None:
        """Have a registered model of this name."""
        from mlflow.exceptions import MlflowException

        about = f"The best trials of the searches of the space `{self._name}`. {RULE}"
        with suppress(MlflowException):  # it is there, or making a version says what is wrong
            self._client.create_registered_model(self._name, description=about)

    # what is known of it --------------------------------------------------------------------------

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
        """Bring tags and card of this trial's version up to date."""
        tags = self._tags()
        for name, value in tags.items():
            if version.tags.get(name) != value:
                self._client.set_model_version_tag(self._name, version.version, name, value)
        if "confirmed" in version.tags.keys() - tags.keys():  # more trials were asked for
            self._client.delete_model_version_tag(self._name, version.version, "confirmed")
        card = model_card(self._result)
        if version.description != card:
            self._client.update_model_version(self._name, version.version, card)

    def _choose(self, version: ModelVersion) -> bool:
        """Let the alias name a version if it should; whether it does."""
        aliases: Mapping[str, Any] = self._client.get_registered_model(self._name).aliases
        present = aliases.get(CHAMPION)
        if present is not None and str(present) != str(version.version):
            champion = self._client.get_model_version(self._name, str(present))
            newest = self._client.get_model_version(self._name, version.version)
            is_newer = int(version.version) > int(present)
            is_own = version.run_id == self._run_id
            is_own &= champion.tags.get("search") == self._result.name
            if not takes_place(newest.tags, champion.tags, is_newer=is_newer, is_own=is_own):
                return False
        if str(present) != str(version.version):
            self._client.set_registered_model_alias(self._name, CHAMPION, version.version)
        return True


def takes_place(
    new: Mapping[str, str], present: Mapping[str, str], *, is_newer: bool, is_own: bool
) -> bool:
    """Whether a version takes the place of the champion; the rule is above.

    Args:
        new: tags of the version.
        present: tags of the champion.
        is_newer: whether the version was made after the champion.
        is_own: whether one search has found both, the champion before it went on.
    """
    if is_own:
        return True
    if any(new.get(name) != present.get(name) for name in _MEASURE):
        return is_newer
    measured = "confirmed" if {"confirmed"} <= new.keys() & present.keys() else "value"
    try:
        ours, theirs = float(new[measured]), float(present[measured])
    except (KeyError, ValueError):  # somebody has changed them
        return True
    sign = sign_of(new["metric"])
    return sign * ours < sign * theirs
