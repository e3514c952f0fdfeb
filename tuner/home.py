"""Home folder of a user's searches, and the MLflow store in it or elsewhere."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import StoreError

DEFAULT_HOME = "runs"
_STORE = "mlflow.db"


@dataclass(frozen=True)
class Home:
    """Folder of all searches.

    Attributes:
        root: absolute path of the folder.
        tracking_uri: URI of the MLflow store: MLFLOW_TRACKING_URI, or a SQLite file in the folder.
    """

    root: Path
    tracking_uri: str

    @classmethod
    def of(cls, path: str | Path | None = None) -> Home:
        """Return the home at a path, at TUNER_HOME, or at ./runs; the folder need not exist."""
        root = Path(path or os.environ.get("TUNER_HOME") or DEFAULT_HOME).absolute()
        return cls(root, os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root}/{_STORE}")

    @classmethod
    def at(cls, path: str | Path | None = None) -> Home:
        """Return the home at a path, at TUNER_HOME, or at ./runs, and create its folder.

        Raises:
            StoreError: if the folder cannot be created or written.
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
        """True if the MLflow store is in the folder."""
        return self.tracking_uri == f"sqlite:///{self.root}/{_STORE}"

    @property
    def has_store(self) -> bool:
        """True if the MLflow store of the folder exists."""
        return (self.root / _STORE).is_file()

    @property
    def artifacts(self) -> Path:
        """Folder of the artifacts of the local store."""
        return self.root / "artifacts"

    @property
    def corpora(self) -> Path:
        """Folder of the prepared corpora."""
        return self.root / "corpora"

    @property
    def starts(self) -> Path:
        """Folder of the checkpoints that trials start from, and their tokenizers."""
        return self.root / "starts"

    @property
    def calibration(self) -> Path:
        """Path of the measured numbers of slots per GPU."""
        return self.root / "calibration.json"

    def search(self, name: str) -> Path:
        """Return the folder of one search: its checkpoints while it runs, and Ray Tune's files."""
        return self.root / "searches" / name
