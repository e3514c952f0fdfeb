"""Text from trained trials: those of one architecture write together, as one stack."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from model.generation import generate as generation
from model.generation.generate import ENDED
from model.generation.settings import GenerationSettings
from model.spec.trial import TrialSpec
from model.tokenizer.tokenizer import Tokenizer
from tuner.errors import RecordError, TunerError
from tuner.trained.load_trial import TrainedTrial


@dataclass(frozen=True)
class Piece:
    """What one step has added to one text.

    Attributes:
        trial: place of the trial among those that were given.
        sample: number of the text, from 0, of those that the trial writes.
        text: whole characters only; empty where one is not complete yet.
        is_token: whether a token was written: not in the piece that ends a text.
        has_ended: whether this is the last piece of the text.
    """

    trial: int
    sample: int
    text: str
    is_token: bool
    has_ended: bool


def sample(
    trials: Sequence[TrainedTrial], prompt: str, *, settings: GenerationSettings | None = None
) -> list[str]:
    """How each trial continues a prompt; an encoder–decoder translates it.

    Args:
        trials: as `tuner.load_trial` gives them, of any architectures.
        prompt: what the text begins with; "" begins a document. `<|endoftext|>` in it is the token
            that stands between documents.
        settings: how to write, by default `GenerationSettings()`. The same settings give the same
            text, whatever other trials write beside it.

    Returns:
        What each trial writes after the prompt, in their order.

    Raises:
        RecordError: if the weights of a trial are no numbers, as it diverged.
        TunerError: if an encoder–decoder gets no text to read.
    """
    texts = [""] * len(trials)
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
    """The same, piece by piece as it is written, and several times.

    Args:
        trials: as for `sample`.
        prompt: as for `sample`.
        settings: as for `sample`.
        samples: texts of each trial. Each has its own dice; sample 0 throws those of `sample`.

    Returns:
        The pieces of all texts in turn, one of each text that goes on in every step.

    Raises:
        RecordError: if the weights of a trial are no numbers, as it diverged.
        TunerError: if an encoder–decoder gets no text to read.
    """
    settings = settings or GenerationSettings()
    for trained in trials:
        check_written(trained)
        if trained.spec.architecture.n_encoder_layers and not prompt:
            raise TunerError(f"{named(trained)} translates; give it a text to read")
    return _pieces(trials, prompt, settings, samples)


def _pieces(
    trials: Sequence[TrainedTrial], prompt: str, settings: GenerationSettings, samples: int
) -> Iterator[Piece]:
    """The pieces of all trials, a step of each stack in turn."""
    groups: dict[str, list[int]] = {}  # architecture → places of the trials
    for place, trained in enumerate(trials):
        groups.setdefault(trained.spec.architecture.model_dump_json(), []).append(place)
    going = [_stack(trials, places, prompt, settings, samples) for places in groups.values()]
    while going:
        for stack in tuple(going):
            pieces = next(stack, None)
            if pieces is None:
                going.remove(stack)
            else:
                yield from pieces


def named(trained: TrainedTrial) -> str:
    """Which trial it is, for messages."""
    return f"trial {trained.trial.number} of {trained.trial.search}"


def check_written(trained: TrainedTrial) -> None:
    """Raise RecordError if weights are not finite: they write nothing and are worth nothing."""
    if not all(bool(w.isfinite().all()) for w in trained.weights.values()):
        raise RecordError(
            f"{named(trained)} ({trained.trial.status}) has weights that are no numbers any more; "
            f"take another trial ('tuner show --search {trained.trial.search}')"
        )


def cut_note(spec: TrialSpec, tokenizer: Tokenizer, prompt: str) -> str | None:
    """What to say of a prompt that a model does not see whole; None if it does."""
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
    places: Sequence[int],
    prompt: str,
    settings: GenerationSettings,
    samples: int,
) -> Iterator[list[Piece]]:
    """The pieces of each step of some trials of one architecture."""
    own = [trials[place] for place in places]
    a = own[0].spec.architecture
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weights = generation.stack_weights(a, [trained.weights for trained in own], device)
    prompts = [[trained.tokenizer.encode(prompt)] * samples for trained in own]
    texts = {
        (slot, number): _Text(trained.tokenizer)
        for slot, trained in enumerate(own)
        for number in range(samples)
    }
    for ids in generation.generate(a, weights, prompts, settings):
        yield [
            text.add(int(ids[slot, number]), places[slot], number)
            for (slot, number), text in texts.items()
            if not text.has_ended
        ]
    yield [
        text.add(ENDED, places[slot], number)
        for (slot, number), text in texts.items()
        if not text.has_ended
    ]


class _Text:
    """A text that is decoded token by token: a character may need several."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._vocab = tokenizer.vocab
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self.has_ended = False

    def add(self, token: int, trial: int, sample: int) -> Piece:
        """The piece that a token adds; ENDED ends the text."""
        self.has_ended = token == ENDED
        # a model may know more ids than there are tokens, which no training told apart from others
        added = b"" if self.has_ended else self._vocab.get(token, b"")
        text = self._decode(added, self.has_ended)
        return Piece(trial, sample, text, not self.has_ended, self.has_ended)
