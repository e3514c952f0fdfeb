"""Rules between data, model, budget and engine, and of the values that a draw may combine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from model.errors import CorpusError
from model.sources.registry import source_bytes
from model.tokenizer.load import vocab_size_of
from tuner.space.conflicts import conflicts
from tuner.space.parameter import LORA_KEYS
from tuner.space_file.checks.rule import CheckedSpace, Finding
from tuner.texts.formatting import broken_rule
from tuner.texts.formatting import listed as in_words

_MOST_SHAPES = 256
_MOST_TOKENS = 2**53  # from here on, whole numbers and floats differ


def data(checked: CheckedSpace) -> Iterator[Finding]:
    """The source exists; sets `data_size`."""
    try:
        size = source_bytes(checked.space.data)
    except (CorpusError, ValueError) as error:
        yield Finding(("data",), str(error))
        return
    questions = checked.space.data.multiple_choice
    if questions is not None and not _is_file(questions):
        message = f"data.multiple_choice: there is no file {questions}; check the path"
        yield Finding(("data", "multiple_choice"), message)
    if size is not None and size < 2:
        what = "are empty" if size == 0 else "hold one byte, too few to train on"
        yield Finding(("data",), f"data: the files {what}; add text to them")
        return
    checked.data_size = size


def start(checked: CheckedSpace) -> Iterator[Finding]:
    """The checkpoint exists; `trained.find_start` checks its contents."""
    init_from = checked.space.init_from
    if init_from and init_from.checkpoint and not _is_file(init_from.checkpoint):
        message = f"init_from.checkpoint: there is no file {init_from.checkpoint}; check the path"
        yield Finding(("init_from", "checkpoint"), message)


def lora(checked: CheckedSpace) -> Iterator[Finding]:
    """LoRA has pretrained weights to adapt, and no settings that it has no meaning for."""
    space, key = checked.space, ("lora",)
    for own, name in LORA_KEYS.items():
        place = checked.places.get(name, key)
        if place[0] != "lora":
            message = f"{place[1]} belongs to the section lora:, as {own}; move it there"
            yield Finding(place, message, at_key=True)
    if not space.is_lora:
        return
    if space.proxy is not None:
        message = "LoRA has no rules by which a proxy stands for its target"
        yield Finding(key, f"lora: {message}; leave out lora or proxy", at_key=True)
    elif space.init_from is None:
        message = "LoRA adapts pretrained weights"
        fix = "give init_from: {huggingface: FOLDER}, or leave lora out"
        yield Finding(key, f"lora: {message}; {fix}", at_key=True)
    elif space.init_from.optimizer_state:
        message = "LoRA trains none of the loaded weights"
        yield Finding(("init_from", "optimizer_state"), f"{message}; leave optimizer_state out")
    if any(space.possible("target_sparsity") or [1]):
        message = "LoRA's B begins at zero and cannot be pruned; leave one of them out"
        yield Finding(checked.place("target_sparsity"), f"s_final: {message}")


def context_length(checked: CheckedSpace) -> Iterator[Finding]:
    """The data are longer than a sequence."""
    space, size = checked.space, checked.data_size
    lengths = [p for p in space.model.values() if p.name == "context_length"]
    longest = max((cast(int, end) for p in lengths for end in p.distribution.ends()), default=0)
    if size is not None and longest >= size and not space.data.has_rows:
        message = f"context_length {longest} is longer than the data, which has {size} bytes"
        fix = "use a shorter context or more text"
        yield Finding(checked.place("context_length"), f"{message}; {fix}")


def budget(checked: CheckedSpace) -> Iterator[Finding]:
    """One setting determines the length of a trial, and it does not depend on others."""
    budget, hyperparameters = checked.space.budget, checked.space.hyperparameters
    tokens = budget.tokens or 0
    if tokens > _MOST_TOKENS:
        message = f"budget.tokens must be at most {_MOST_TOKENS:.1e}, got {tokens:.3g}"
        yield Finding(("budget", "tokens"), message)
    budgets = [f"budget.{name}" for name in ("tokens", "flops") if getattr(budget, name)]
    for name in ("total_steps", "epochs"):
        parameter = hyperparameters.get(name)
        if parameter is not None:
            budgets.append(checked.spelled(name))
            if parameter.when:
                message = f"{budgets[-1]} is the budget, so it cannot depend on a when"
                yield Finding(checked.place(name), f"{message}; remove the when")
    if len(budgets) != 1:
        got = in_words(budgets, "and") if budgets else "none"
        one_of = "budget.tokens, budget.flops, T_total and N_epoch"
        yield Finding(("budget",), f"give exactly one of {one_of}, got {got}")


def schedule_of_budgets(checked: CheckedSpace) -> Iterator[Finding]:
    """A list of budgets needs a schedule with a cool-down.

    That no hyperparameter depends on T_total is a rule between them (`space/conflicts.py`).
    """
    schedules = checked.space.possible("schedule") or []
    other = [schedule for schedule in schedules if schedule != "wsd"]
    if checked.space.budget.shorter and other:
        message = f"needs schedule wsd, whose rate is constant first, got {other[0]}"
        yield Finding(("budget", "tokens"), f"budget.tokens: a list of budgets {message}")


def device(checked: CheckedSpace) -> Iterator[Finding]:
    """The device of the workers computes in the dtype, and has compiled ticks if they are on."""
    engine = checked.space.engine
    if engine.dtype == "tf32" and engine.device in ("cpu", "mps"):
        message = f"only GPUs of NVIDIA compute in tf32, and engine.device is {engine.device}"
        yield Finding(("engine", "dtype"), f"{message}; use auto or float32")
    if engine.dtype == "mixed_bfloat16" and engine.device in ("cuda", "mps"):
        message = f"only CPUs compute in mixed_bfloat16, and engine.device is {engine.device}"
        yield Finding(("engine", "dtype"), f"{message}; use auto or bfloat16")
    if engine.compile == "on" and engine.device in ("cuda", "mps"):
        message = f"ticks are compiled on a CPU only, and engine.device is {engine.device}"
        yield Finding(("engine", "compile"), f"{message}; use auto or off")


def batch(checked: CheckedSpace) -> Iterator[Finding]:
    """Every B is a multiple of the micro-batch."""
    try:
        micro_batch = checked.space.micro_batch
        wrong = [b for b in checked.space.batch_sizes if cast(int, b) % micro_batch]
    except ValueError as error:
        yield Finding(checked.place("batch_size"), str(error))
        return
    if wrong:
        message = f"every B must be a multiple of the micro-batch {micro_batch}, got B = {wrong[0]}"
        fix = "change one of them, or leave micro_batch out"
        yield Finding(("engine", "micro_batch"), f"{message}; {fix}")


def shapes(checked: CheckedSpace) -> Iterator[Finding]:
    """Every architecture is possible, and they are not too many; pairs have an encoder–decoder."""
    space = checked.space
    file = Path(space.tokenizer.file or "")
    if file.exists() and not file.is_file() and not file.is_dir():
        message = f"tokenizer.file: {file} is a pipe or a device; give a file"
        yield Finding(("tokenizer", "file"), message)
        return
    try:
        vocab_size = vocab_size_of(space.tokenizer)
    except CorpusError as error:
        yield Finding(("tokenizer", "file"), str(error))
        return
    try:
        shapes = space.shapes(vocab_size)
    except ValidationError as error:
        yield Finding(("model",), f"model: {broken_rule('', error.errors()[0])}")
        return
    except ValueError as error:
        yield Finding(("model",), f"model: {error}")
        return
    if len(shapes) > _MOST_SHAPES:
        message = f"model: more than {_MOST_SHAPES} different shapes; search fewer sizes"
        yield Finding(("model",), message)
    has_encoder = [shape.n_encoder_layers > 0 for shape in shapes]
    if not all(has_encoder) and space.data.pairs:
        message = "data.pairs needs an encoder; set model.n_encoder_layers to 1 or more"
        yield Finding(("data", "pairs"), message)
    elif any(has_encoder) and not space.data.pairs:
        message = "n_encoder_layers needs data of pairs; set data.pairs: true, with source:"
        fix = "python-docstrings or files: of tables"
        yield Finding(checked.place("n_encoder_layers"), f"{message} {fix}")
    if space.data.examples and not all(shape.attend_across_documents for shape in shapes):
        message = "attend_across_documents: false has no effect on examples, which never see each"
        fix = "other; leave it out"
        yield Finding(checked.place("attend_across_documents"), f"{message} {fix}")


def grid(checked: CheckedSpace) -> Iterator[Finding]:
    """The trials are enough for all `grid` parameters."""
    yield from large_grid(checked, checked.space.num_grid_points)


def large_grid(checked: CheckedSpace, points: int) -> Iterator[Finding]:
    """A grid has at most as many points as there are trials."""
    trials = checked.space.search.trials
    if points > trials:
        message = f"the grid has {points:,} points, but search.trials is {trials}"
        yield Finding(("search", "trials"), f"{message}; raise it, or give fewer values")


def conflicting(checked: CheckedSpace) -> Iterator[Finding]:
    """No draw breaks a rule between hyperparameters."""
    if checked.data_size is not None:
        for name, message in conflicts(checked.space, checked.data_size):
            yield Finding(checked.place(name), message)


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # a name that is too long
        return False
