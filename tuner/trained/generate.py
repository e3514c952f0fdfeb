"""Samples text from trained trials; trials of one architecture run as one stack."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from model.device.threads import one_thread
from model.generation import generate as generation
from model.generation.generate import ENDED
from model.generation.settings import GenerationSettings
from model.spec.architecture import Architecture
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
    trials: Sequence[TrainedTrial], prompt: str, *, settings: GenerationSettings | None = None
) -> list[str]:
    """Continue a prompt with each trial; an encoder–decoder translates it.

    Args:
        trials: trials of any architectures (`tuner.load_trial`).
        prompt: beginning of the text; "" begins a document. `<|endoftext|>` is the token between
            documents.
        settings: settings of the sampling, by default `GenerationSettings()`. The text of a trial
            depends only on them, not on the other trials.

    Returns:
        The text of each trial without the prompt, in the order of the trials.

    Raises:
        RecordError: if the weights of a trial are not finite, because it diverged.
        TunerError: if an encoder–decoder gets an empty prompt.
    """
    texts = [""] * len(trials)
    with one_thread():
        for piece in generate(trials, prompt, settings=settings):
            texts[piece.trial] += piece.text
    return texts


def generate(
    trials: Sequence[TrainedTrial],
    prompt: str,
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
    """
    settings = settings or GenerationSettings()
    for trained in trials:
        check_finite_weights(trained)
        if trained.spec.architecture.n_encoder_layers and not prompt:
            raise TunerError(f"{trial_name(trained)} translates; give it a text to read")
    return _pieces(trials, prompt, settings, samples)


def _pieces(
    trials: Sequence[TrainedTrial], prompt: str, settings: GenerationSettings, samples: int
) -> Iterator[Piece]:
    """Yield the pieces of all trials, a step of each stack in turn."""
    groups: dict[str, list[int]] = {}  # architecture → indices of the trials
    for index, trained in enumerate(trials):
        groups.setdefault(_architecture(trained).model_dump_json(), []).append(index)
    stacks = [_stack(trials, indices, prompt, settings, samples) for indices in groups.values()]
    while stacks:
        for stack in tuple(stacks):
            pieces = next(stack, None)
            if pieces is None:
                stacks.remove(stack)
            else:
                yield from pieces


def _architecture(trained: TrainedTrial) -> Architecture:
    """Return the architecture of a trial; texts end with the token that ends answers, if any."""
    a, chat = trained.spec.architecture, trained.spec.data.chat
    if chat is None:
        return a
    return a.model_copy(update={"end_of_text": trained.tokenizer.encode(chat.end)[-1]})


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


def cut_note(spec: TrialSpec, tokenizer: Tokenizer, prompt: str) -> str | None:
    """Return a note on a prompt that is too long for the model; None if it is not."""
    a, length = spec.architecture, len(tokenizer.encode(prompt))
    if a.n_encoder_layers and length >= a.source_length:
        return (
            f"the text has {length:,} tokens, of which the first {a.source_length - 1:,} are read"
        )
    if not a.n_encoder_layers and length > a.context_length:
        return f"the prompt has {length:,} tokens, of which the last {a.context_length:,} are read"
    return None


def _stack(
    trials: Sequence[TrainedTrial],
    indices: Sequence[int],
    prompt: str,
    settings: GenerationSettings,
    samples: int,
) -> Iterator[list[Piece]]:
    """Yield the pieces of each step of trials of one architecture."""
    members = [trials[index] for index in indices]
    a = _architecture(members[0])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weights = generation.stack_weights(a, [trained.weights for trained in members], device)
    prompts = [[trained.tokenizer.encode(prompt)] * samples for trained in members]
    texts = {
        (slot, number): _Text(trained.tokenizer)
        for slot, trained in enumerate(members)
        for number in range(samples)
    }
    ended = np.full((len(members), samples), ENDED)
    for ids in chain(generation.generate(a, weights, prompts, settings), [ended]):
        yield [
            text.add(int(ids[slot, number]), indices[slot], number)
            for (slot, number), text in texts.items()
            if not text.has_ended
        ]


class _Text:
    """Decoder of one text, token by token: a character may need several tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._vocab = tokenizer.vocab
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self.has_ended = False

    def add(self, token: int, trial: int, sample: int) -> Piece:
        """Return the piece that a token adds; ENDED ends the text."""
        self.has_ended = token == ENDED
        # the vocabulary of the model may be larger than the tokenizer's: untrained ids give no text
        token_bytes = b"" if self.has_ended else self._vocab.get(token, b"")
        text = self._decode(token_bytes, self.has_ended)
        return Piece(trial, sample, text, self.has_ended)
