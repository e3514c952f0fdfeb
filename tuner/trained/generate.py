"""Samples text from trained trials; trials of one architecture run as one stack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch

from model.device.threads import one_thread
from model.generation import generate as generation
from model.generation.generate import ENDED
from model.generation.prompts import Prompt, end_ids
from model.generation.settings import GenerationSettings
from model.spec.trial import TrialSpec
from model.tokenizer.tokenizer import Tokenizer
from tuner.errors import RecordError, TunerError
from tuner.trained.load_trial import TrainedTrial


@dataclass(frozen=True)
class Piece:
    """Addition of one step to one text.

    Attributes:
        trial: index of the trial among the arguments.
        sample: number of the text among those of the trial, from 0.
        text: complete characters only; empty while a character is incomplete.
        has_ended: True for the last piece of the text, which is of no token.
    """

    trial: int
    sample: int
    text: str
    has_ended: bool


def sample(
    trials: Sequence[TrainedTrial],
    prompt: str | Prompt,
    *,
    settings: GenerationSettings | None = None,
) -> list[str]:
    """Continue a prompt with each trial; an encoder–decoder translates it, and a chat answers.

    Args:
        trials: trials of any architectures (`tuner.load_trial`).
        prompt: beginning of the text; "" begins a document. `<|endoftext|>` is the token between
            documents. A model that was tuned on examples and has a chat template reads it as the
            message of a user; `Prompt(text, is_raw=True)` is read as it is, and `Prompt(text,
            system=…)` after a message of the system.
        settings: settings of the sampling, by default `GenerationSettings()`. The text of a trial
            depends only on them, not on the other trials.

    Returns:
        The text of each trial without the prompt, in the order of the trials.

    Raises:
        RecordError: if the weights of a trial are not finite, because it diverged.
        TunerError: if an encoder–decoder gets an empty prompt.
        CorpusError: if a trial cannot read the prompt, such as a message of the system.
    """
    texts = [""] * len(trials)
    with one_thread():
        for piece in generate(trials, prompt, settings=settings):
            texts[piece.trial] += piece.text
    return texts


def generate(
    trials: Sequence[TrainedTrial],
    prompt: str | Prompt,
    *,
    settings: GenerationSettings | None = None,
    samples: int = 1,
) -> Iterator[Piece]:
    """Continue a prompt with each trial, several times, and yield the texts piece by piece.

    Args:
        trials: as for `sample`.
        prompt: as for `sample`.
        settings: as for `sample`.
        samples: number of texts of each trial. Each text has its own random stream; text 0 equals
            that of `sample`.

    Returns:
        The pieces; every step yields a piece of each text that has not ended.

    Raises:
        RecordError: if the weights of a trial are not finite, because it diverged.
        TunerError: if an encoder–decoder gets an empty prompt.
        CorpusError: as `sample`.
    """
    settings = settings or GenerationSettings()
    asked = Prompt(prompt) if isinstance(prompt, str) else prompt
    members = []
    for place, trained in enumerate(trials):
        check_finite_weights(trained)
        if trained.spec.architecture.n_encoder_layers and not asked.text:
            raise TunerError(f"{trial_name(trained)} translates; give it a text to read")
        a, chat = trained.spec.architecture, trained.spec.data.chat
        ends = end_ids(a.end_of_text, chat, trained.tokenizer)
        members.append(_Member(place, trained, asked.ids(trained.spec, trained.tokenizer), ends))
    return _pieces(members, settings, samples)


class _Member(NamedTuple):
    """A trial that generates: its place among the arguments, its prompt, and ids that end texts."""

    place: int
    trained: TrainedTrial
    prompt: list[int]
    ends: tuple[int, ...]


def _pieces(
    members: Sequence[_Member], settings: GenerationSettings, samples: int
) -> Iterator[Piece]:
    """Yield the pieces of all trials, a step of each stack in turn."""
    groups: dict[tuple[str, tuple[int, ...]], list[_Member]] = {}
    for member in members:
        a = member.trained.spec.architecture
        groups.setdefault((a.model_dump_json(), member.ends), []).append(member)
    stacks = [_stack(group, settings, samples) for group in groups.values()]
    while stacks:
        for stack in tuple(stacks):
            pieces = next(stack, None)
            if pieces is None:
                stacks.remove(stack)
            else:
                yield from pieces


def trial_name(trained: TrainedTrial) -> str:
    """Return the name of a trial for messages."""
    return f"trial {trained.trial.number} of {trained.trial.search}"


def check_finite_weights(trained: TrainedTrial) -> None:
    """Raise RecordError if a weight is not finite: such a model generates nothing."""
    if not all(bool(w.isfinite().all()) for w in trained.weights.values()):
        raise RecordError(
            f"{trial_name(trained)} ({trained.trial.status}) has weights that are not finite; "
            f"choose another trial ('tuner show --search {trained.trial.search}')"
        )


def cut_note(spec: TrialSpec, tokenizer: Tokenizer, prompt: Prompt) -> str | None:
    """Return a note on a prompt that is too long for the model; None if it is not."""
    a, length = spec.architecture, len(prompt.ids(spec, tokenizer))
    if a.n_encoder_layers and length >= a.source_length:
        return (
            f"the text has {length:,} tokens, of which the first {a.source_length - 1:,} are read"
        )
    if not a.n_encoder_layers and length > a.context_length:
        return f"the prompt has {length:,} tokens, of which the last {a.context_length:,} are read"
    return None


def _stack(
    members: Sequence[_Member], settings: GenerationSettings, samples: int
) -> Iterator[list[Piece]]:
    """Yield the pieces of each step of trials of one architecture, whose texts end alike."""
    a, ends = members[0].trained.spec.architecture, members[0].ends
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weights = generation.stack_weights(a, [member.trained.weights for member in members], device)
    prompts = [[member.prompt] * samples for member in members]
    texts = {
        (slot, number): _Text(member.trained.tokenizer)
        for slot, member in enumerate(members)
        for number in range(samples)
    }
    ended = np.full((len(members), samples), ENDED)
    for ids in chain(generation.generate(a, weights, prompts, settings, ends=ends), [ended]):
        yield [
            text.add(int(ids[slot, number]), members[slot].place, number)
            for (slot, number), text in texts.items()
            if not text.has_ended
        ]


class _Text:
    """Decoder of one text, token by token: a character may need several tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._next = tokenizer.stream()
        self.has_ended = False

    def add(self, token: int, trial: int, sample: int) -> Piece:
        """Return the piece that a token adds; ENDED ends the text."""
        self.has_ended = token == ENDED
        # the vocabulary of the model may be larger than the tokenizer's: untrained ids give no text
        text = self._next(None if self.has_ended else token)
        return Piece(trial, sample, text, self.has_ended)
