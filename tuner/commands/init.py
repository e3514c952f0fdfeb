"""`tuner init`: write a space to the working folder: of a shipped study, or for data at hand."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from model.files import replacing
from tuner.commands.output import print_json, say
from tuner.errors import TunerError
from tuner.space_file.shipped import shipped_spaces, subject
from tuner.texts.formatting import clock, counted, listed, shown, unknown

if TYPE_CHECKING:  # `tuner init lm` needs none of them
    from model.sources.survey import Survey
    from model.spec.data import DataConfig
    from tuner.validation.text_space import TextSpace

_FINETUNE = "finetune"
_CONFIG = "config.json"  # in the folder of a model of Hugging Face


def run_init(options: argparse.Namespace) -> int:
    """Write a space, or list the studies."""
    spaces = shipped_spaces()
    if options.list:
        return _list(options, spaces)
    if options.study not in spaces and _is_data(options.study):
        return _from_data(options)
    if options.study not in spaces:
        raise TunerError(unknown("study", options.study, spaces))
    if options.files:
        raise TunerError(
            f"{options.files[0]} is one name too many: give a study, or files of your own, such as "
            f"'tuner init notes.txt'"
        )
    # comments of the file name its path in the repository
    text = spaces[options.study].read_text(encoding="utf-8").replace("search_spaces/", "")
    if options.model is not None or options.data is not None:
        text = _finetune(options)
    path = _write(options, options.study, text)
    print_json(options, {"study": options.study, "file": str(path.absolute())})
    return 0


def _write(options: argparse.Namespace, name: str, text: str) -> Path:
    """Write a space to the working folder, and say what to do with it."""
    path = _free(options, name)
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        message = f"cannot write {path.absolute()}: {error.strerror}; choose another folder"
        raise TunerError(message) from error
    say(f"wrote {path}; 'tuner validate --space {path}' explains it, 'tuner search --space {path}' "
        f"runs it")  # fmt: skip
    return path


def _free(options: argparse.Namespace, name: str) -> Path:
    """Return the path of a new space; raise TunerError if there is a file that may not go."""
    path = Path(f"{name}.yaml")
    if path.exists() and not options.force:
        raise TunerError(f"{path} exists already; --force replaces it")
    return path


def _finetune(options: argparse.Namespace) -> str:
    """Return the space of a fine-tuning for the model and the data of the command line."""
    if options.study != _FINETUNE or options.model is None or options.data is None:
        raise TunerError(
            "--model and --data belong together and to finetune: tuner init finetune --model "
            "FOLDER --data FILE"
        )
    from tuner.space_file.pretrained_space import pretrained_space

    return pretrained_space(options.study, options.model, options.data)


# data at hand ------------------------------------------------------------------------------------


def _is_data(name: str) -> bool:
    """Return whether a word means data and no study: a path, or a pattern that matches."""
    return Path(name).exists() or bool(re.search(r"[/*?.]", name))


def _from_data(options: argparse.Namespace) -> int:
    """Write a space for files, or for a pretrained model and files."""
    if options.model is not None or options.data is not None:
        raise TunerError("--model and --data belong to finetune; give the paths alone, or finetune")
    paths = _patterns([options.study, *options.files])
    if Path(paths[0], _CONFIG).is_file():
        return _from_model(options, *paths)
    name = _name_of(paths[0])
    _free(options, name)
    config, seen = _look(paths)
    from tuner.validation.text_space import text_space
    from tuner.workers.devices import has_nvidia_gpu, num_cores

    cores, has_gpu = num_cores(), has_nvidia_gpu()
    made = text_space(name, config, seen, cores, has_gpu=has_gpu)
    _say_space(made, cores, has_gpu=has_gpu)
    text = made.text(f"{', '.join(map(shown, paths[:3]))}: {_amounts(seen)}.")
    if not options.plain:
        text = _with_suggestions(text, name)
    path = _write(options, name, text)
    print_json(options, {"file": str(path.absolute()), **_json(seen), "tokens": made.text_tokens})
    return 0


def _from_model(options: argparse.Namespace, model: str, *files: str) -> int:
    """Write the fine-tuning of a pretrained model."""
    if len(files) != 1:
        raise TunerError(
            f"{model} is a pretrained model, which is fine-tuned on one file: tuner init {model} "
            f"data.jsonl"
        )
    from tuner.space_file.pretrained_space import pretrained_space

    _free(options, _FINETUNE)
    text = pretrained_space(_FINETUNE, model, files[0])
    _, seen = _look(list(files))
    path = _write(options, _FINETUNE, text)
    print_json(options, {"file": str(path.absolute()), "model": model, **_json(seen)})
    return 0


def _patterns(paths: list[str]) -> list[str]:
    """Return a pattern instead of many paths, where a shell has replaced it by its matches."""
    first = Path(paths[0])
    matches = {str(path) for path in first.parent.glob(f"*{first.suffix}")}
    is_pattern = len(paths) > 1 and matches == {str(Path(path)) for path in paths}
    return [str(first.parent / f"*{first.suffix}")] if is_pattern else paths


def _name_of(path: str) -> str:
    """Return a name for the space: that of the file, or of the folder of a pattern."""
    given = Path(path)
    if any(c in given.name for c in "*?["):
        given = given.parent
    stem = given.resolve().name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:48] or "text"


def _look(paths: list[str]) -> tuple[DataConfig, Survey]:
    """Return files as `data:` of a space, and what is in them, which is said."""
    from model.sources.formats import TABLES
    from model.sources.registry import source_files
    from model.sources.streams import format_suffix
    from model.sources.survey import survey, text_field
    from model.spec.data import DataConfig

    config = DataConfig(files=tuple(paths))
    fields: dict[str, str] = {}
    for file in source_files(config):
        option = TABLES[suffix][0] if (suffix := format_suffix(file.path)) in TABLES else None
        name = text_field(file.path) if option and option not in fields else None
        fields |= {option: name} if option and name else {}
    config = DataConfig.model_validate({"files": config.files, **fields})
    seen = survey(config)
    say(f"{', '.join(map(shown, paths[:3]))}{' …' if len(paths) > 3 else ''}: {_amounts(seen)}")
    scripts = [f"{name} {100 * share:.0f} %" for name, share in seen.scripts.items()]
    if scripts:
        say(f"  letters: {listed(scripts, 'and')}")
    if seen.duplicates:
        share = 100 * seen.duplicates / seen.documents
        say(f"  {counted(seen.duplicates, 'document')} ({share:.2g} %) equal an earlier one; the "
            f"split does not know it, so that held-out ones may have been trained on")  # fmt: skip
    return config, seen


def _amounts(seen: Survey) -> str:
    """Return the size of data in words."""
    size = seen.total_bytes if seen.total_bytes is not None else seen.text_bytes
    amount = f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size:,} bytes"
    files, docs = counted(seen.files, "file"), counted(seen.documents, "document")
    if seen.is_complete:
        median = f", half of them longer than {seen.median:,} characters"
        return f"{files}, {amount} of text, {docs}{median if seen.documents > 1 else ''}"
    size_text = f"at most {amount}" if seen.total_bytes is not None else f"at least {amount}"
    return f"{files}, {size_text} of text; the first {docs} were looked at"


def _json(seen: Survey) -> dict[str, object]:
    kept = ("files", "documents", "duplicates", "text_bytes", "is_complete")
    return {name: getattr(seen, name) for name in kept} | {"scripts": dict(seen.scripts)}


def _say_space(made: TextSpace, cores: int, *, has_gpu: bool) -> None:
    a = made.architecture
    say(f"  about {made.text_tokens:,} training tokens with a vocabulary of {made.vocab_size:,} "
        f"({made.bytes_per_token:.2g} bytes each)")  # fmt: skip
    machine = "a GPU, on which no time was measured" if has_gpu else f"{counted(cores, 'core')}"
    time = "" if made.seconds is None else f", about {clock(made.seconds)} of training"
    sizes = f"{counted(a.n_layers, 'layer')} of {a.d_model}, context {a.context_length}"
    weights = f"{a.num_parameters:,} weights ({sizes})"
    say(f"{machine}{time}: {weights}, {made.tokens:,} tokens a trial")


def _with_suggestions(text: str, name: str) -> str:
    """Return a space with the suggested values as priors; unchanged if nothing is known."""
    from tuner.home.home import Home
    from tuner.knowledge.answer import answer_for_space
    from tuner.knowledge.library import collect
    from tuner.space_file.load import read_space
    from tuner.space_file.prior import add_priors
    from tuner.validation.explanation import explain

    home = Home.of(None)
    space, _ = read_space(f"{name}.yaml", text=text)
    explanation = explain(space, home.readable(say), name)
    try:
        answer = answer_for_space(collect(home, None), explanation.space, explanation.facts)
    except TunerError as error:
        say(f"no values are suggested: {error}")
        return text
    values = [
        f"{s.setting.symbol} {shown(float(f'{s.estimate.value:.3g}'))}{s.setting.unit_text}"
        for s in answer.settings[:3]
    ]
    say(f"suggested, as priors of the search: {listed(values, 'and')} …, from "
        f"{listed([s.text for s in answer.sources], 'and')} and published laws")  # fmt: skip
    return add_priors(text, answer.priors)


# studies -----------------------------------------------------------------------------------------


def _list(options: argparse.Namespace, spaces: dict[str, Path]) -> int:
    """Print the studies with the first sentence of their comments."""
    studies = {name: subject(path) for name, path in spaces.items()}
    out = sys.stderr if options.json else sys.stdout
    width = max(map(len, studies), default=0)
    for name, text in studies.items():
        out.write(f"{name:{width}}  {text}\n")
    print_json(options, {"studies": studies})
    return 0
