"""Names of what a search leaves in the tracking store: files, tags, and what says where it ran."""

from collections.abc import Mapping
from typing import NamedTuple

SPEC_FILE = "spec.json"
SPACE_FILE = "search_space.yaml"
TOKENIZER_FILE = "tokenizer.json"
STATE_FILE = "state/checkpoint.safetensors"  # of a trial whose weights are kept
START_FOLDER = "start"  # what warm-started trials started with
DATA_FILE = "data.json"  # the files that the data was, with their digests
REPORT_FILE = "report.html"
JOURNAL_FILE = "journal.jsonl"  # all that a search decided and heard
SYSTEM = "system/"  # before the names of what MLflow shows as system metrics
ENVIRONMENT = ("device", "dtype", "width", "trainer", "torch", "numpy", "python")


class Tag:
    """Names of the tags that we set on runs."""

    PARENT = "mlflow.parentRunId"
    SOURCE = "mlflow.source.name"
    NOTE = "mlflow.note.content"  # what MLflow shows as the description of a run
    KIND = "tuner.kind"  # search | trial
    SEARCH = "tuner.search"
    STATUS = "status"  # running, or how it ended: finished, stopped at report n, diverged, …
    SAMPLER = "sampler"
    SCHEDULER = "scheduler"
    TRIAL = "tuner.trial"
    PARENT_TRIAL = "tuner.parent_trial"  # from whose state a trial went on
    CONFIRMS = "tuner.confirms"  # whose configuration a trial trains with another seed
    STATE = "tuner.state_tokens"  # at which the kept state was, if one is
    ORIGIN = "tuner.origin"  # recorded: an equal trial was trained before, this one was not
    BEST = "tuner.best_run"
    METRIC = "tuner.metric"
    INIT_FROM = "tuner.init_from"
    SEED = "seed"
    SPEC_HASH = "spec_hash"
    DATA = "data_fingerprint"
    TOKENIZER = "tokenizer_fingerprint"


class SystemMetrics(NamedTuple):
    """What was measured at one time.

    Attributes:
        values: metric → value.
        time_ms: when the driver heard of it.
    """

    values: Mapping[str, float]
    time_ms: int
