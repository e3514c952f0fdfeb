"""Where a user's searches live: one folder, and the tracking store in or beside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import StoreError

DEFAULT_HOME = "runs"
_STORE = "mlflow.db"


@dataclass(frozen=True)
class Home:
    """The folder of all searches.

    Attributes:
        root: absolute path.
        tracking_uri: of the MLflow store: MLFLOW_TRACKING_URI, else a SQLite file in the folder.
    """

    root: Path
    tracking_uri: str

    @classmethod
    def of(cls, path: str | Path | None = None) -> Home:
        """The home at a path, at TUNER_HOME, or at ./runs, whether it is there or not."""
        root = Path(path or os.environ.get("TUNER_HOME") or DEFAULT_HOME).absolute()
        return cls(root, os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root}/{_STORE}")

    @classmethod
    def at(cls, path: str | Path | None = None) -> Home:
        """The same, made if need be.

        Raises:
            StoreError: if the folder cannot be made or written.
        """
        home = cls.of(path)
        root = home.root
        if any(character in str(root) for character in "%?#"):
            raise StoreError(f"the path {root} has one of % ? # in it; choose another --home")
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot make the folder {root}: {error.strerror}; choose another with --home"
            ) from error
        if not os.access(root, os.W_OK):
            raise StoreError(f"cannot write to the folder {root}; choose another with --home")
        return home

    @property
    def is_local(self) -> bool:
        """Whether the store is in the folder."""
        return self.tracking_uri == f"sqlite:///{self.root}/{_STORE}"

    @property
    def has_store(self) -> bool:
        """Whether the store of the folder has been made."""
        return (self.root / _STORE).is_file()

    @property
    def artifacts(self) -> Path:
        """Artifacts of the local store."""
        return self.root / "artifacts"

    @property
    def corpora(self) -> Path:
        """Prepared corpora."""
        return self.root / "corpora"

    @property
    def starts(self) -> Path:
        """What warm-started trials start with, and the tokenizers that it goes with."""
        return self.root / "starts"

    @property
    def calibration(self) -> Path:
        """How many trials the GPUs that were measured train at one time."""
        return self.root / "calibration.json"

    def search(self, name: str) -> Path:
        """Files of one search: checkpoints while it runs, and Ray Tune's own state."""
        return self.root / "searches" / name
