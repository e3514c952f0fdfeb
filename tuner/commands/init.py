"""`tuner init`: write the commented space of a shipped study to the working folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from model.files import replacing
from tuner.commands.output import print_json, say
from tuner.errors import TunerError
from tuner.space_file.shipped import shipped_spaces
from tuner.texts.formatting import unknown


def run_init(options: argparse.Namespace) -> int:
    """Write a space, or list the studies."""
    spaces = shipped_spaces()
    if options.list:
        return _list(options, spaces)
    if options.study not in spaces:
        raise TunerError(unknown("study", options.study, spaces))
    path = Path(f"{options.study}.yaml")
    # comments of the file name its path in the repository
    text = spaces[options.study].read_text(encoding="utf-8").replace("search_spaces/", "")
    if options.model is not None or options.data is not None:
        text = _finetune(options)
    if path.exists() and not options.force:
        raise TunerError(f"{path} exists already; --force replaces it")
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        message = f"cannot write {path.absolute()}: {error.strerror}; choose another folder"
        raise TunerError(message) from error
    say(f"wrote {path}; 'tuner validate --space {path}' explains it, 'tuner search --space {path}' "
        f"runs it")  # fmt: skip
    print_json(options, {"study": options.study, "file": str(path.absolute())})
    return 0


def _finetune(options: argparse.Namespace) -> str:
    """Return the space of a fine-tuning for the model and the data of the command line."""
    if options.study != "finetune" or options.model is None or options.data is None:
        raise TunerError(
            "--model and --data belong together and to finetune: tuner init finetune --model "
            "FOLDER --data FILE"
        )
    from tuner.space_file.pretrained_space import pretrained_space

    return pretrained_space(options.study, options.model, options.data)


def _list(options: argparse.Namespace, spaces: dict[str, Path]) -> int:
    """Print the studies with the first sentence of their comments."""
    studies = {name: _subject(path) for name, path in spaces.items()}
    out = sys.stderr if options.json else sys.stdout
    width = max(map(len, studies), default=0)
    for name, subject in studies.items():
        out.write(f"{name:{width}}  {subject}\n")
    print_json(options, {"studies": studies})
    return 0


def _subject(path: Path) -> str:
    """Return the first sentence of a file's comments."""
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        words += line.lstrip("# ").split()
    text = " ".join(words)
    end = text.find(". ")
    return text if end < 0 else text[:end]
