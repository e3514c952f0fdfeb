"""Tokens that `tuner login` keeps for the servers of this user."""

from __future__ import annotations

import json
import os
from pathlib import Path

from model.files import replacing
from tuner.errors import TunerError


def tokens_file() -> Path:
    """Return the path of the tokens that `tuner login` keeps."""
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config) / "tuner" / "tokens.json"


def kept_tokens() -> dict[str, str]:
    """Return the tokens that `tuner login` has kept, by the URLs of their servers."""
    try:
        tokens = json.loads(tokens_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return tokens if isinstance(tokens, dict) else {}


def keep_token(url: str, token: str) -> Path:
    """Keep a token for a server in a file that only its user can read; return its path.

    Raises:
        TunerError: if it cannot be written.
    """
    path = tokens_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(path) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(json.dumps({**kept_tokens(), url: token}, indent=1).encode())
    except OSError as error:
        raise TunerError(f"cannot write {path}: {error.strerror}") from error
    return path
