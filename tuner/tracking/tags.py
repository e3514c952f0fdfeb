"""Names of files and tags of a search in the tracking store."""

SPEC_FILE = "spec.json"
SPACE_FILE = "search_space.yaml"
CHECKPOINT_FILE = "state/checkpoint.safetensors"  # of a trial whose weights are kept
START_FOLDER = "start"  # tensors from which warm-started trials start
DATA_FILE = "data.json"  # files of the data, with their digests
REPORT_FILE = "report.html"
ENVIRONMENT = (  # tags
    "device", "dtype", "width", "compiled", "trainer", "torch", "numpy", "python",
)  # fmt: skip


class Tag:
    """Names of the tags of runs."""

    PARENT = "mlflow.parentRunId"
    SOURCE = "mlflow.source.name"
    NOTE = "mlflow.note.content"  # shown by MLflow as the description of a run
    KIND = "tuner.kind"  # search | trial
    SEARCH = "tuner.search"
    STATUS = "status"  # running, or the outcome: finished, stopped at report n, diverged, …
    SAMPLER = "sampler"
    SCHEDULER = "scheduler"
    TRIAL = "tuner.trial"
    PARENT_TRIAL = "tuner.parent_trial"  # trial from whose checkpoint this one continued
    CONFIRMS = "tuner.confirms"  # trial whose configuration this one trains with another seed
    STATE = "tuner.state_tokens"  # training tokens of the kept checkpoint, if one is kept
    ORIGIN = "tuner.origin"  # recorded: reports of an equal trial were reused, nothing trained
    BEST = "tuner.best_run"
    METRIC = "tuner.metric"
    DEFAULTS = "tuner.defaults"  # raced or off; searches that train them to the end have no tag
    INIT_FROM = "tuner.init_from"
    LEARNED = "tuner.learned_from"  # what was learned from earlier searches, as a sentence
    TRIALS_DONE = "trials_done"  # 5 of 24
    BEST_SO_FAR = "best"  # val_loss 4.1234 in trial 7
    TIME_LEFT = "time_left"  # minutes:seconds
    JOURNAL = "tuner.journal"  # digest of the recorded journal
    SEED = "seed"
    SPEC_HASH = "spec_hash"
    DATA = "data_fingerprint"
    TOKENIZER = "tokenizer_fingerprint"
