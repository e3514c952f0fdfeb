"""Questions with several answers, of which a model prefers one by the likelihood of its tokens.

    {"prompt": "The capital of France is", "choices": ["Paris", "Lyon"], "answer": 0}

The definition is that of lm-evaluation-harness: a choice is scored by the sum of the logarithms of
its tokens' probabilities after the prompt and a space, without and with division by its characters.

N = choices of all questions, T = tokens of a sequence.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from model.errors import CorpusError
from model.sources.streams import texts

if TYPE_CHECKING:  # an engine has choices, and tokenizers need packages that a GPU may lack
    from model.tokenizer.tokenizer import Tokenizer

Ints = npt.NDArray[np.int64]

_DELIMITER = " "  # between prompt and choice


class ChoiceShares(NamedTuple):
    """Share of the questions whose right choice has the highest score.

    Attributes:
        acc: by sums of logarithms.
        acc_norm: by sums divided by the characters of the choice.
    """

    acc: float
    acc_norm: float


@dataclass(frozen=True)
class ChoiceSet:
    """Questions with their choices as token ids.

    Attributes:
        tokens: ids of prompts with a choice each, 1-D int64.
        bounds: (N + 1,) begin of each in `tokens`, and the end of the last.
        lengths: (N,) tokens of the choice at the end of each.
        characters: (N,) characters of each choice.
        questions: (N,) number of the question of each, ascending from 0.
        answers: number of the right choice among all N, for each question.
    """

    tokens: Ints
    bounds: Ints
    lengths: Ints
    characters: Ints
    questions: Ints
    answers: Ints

    @property
    def longest(self) -> int:
        """Tokens of the longest choice: no context may be shorter."""
        return int(self.lengths.max())

    def rows(self, context_length: int, padding: int, ignored: int) -> tuple[Ints, Ints]:
        """Return inputs and targets, (N, T) each, as long as the longest needs at most.

        Of prompts that are too long, the end is kept.

        Args:
            context_length: longest T.
            padding: id in places without a token.
            ignored: target in places that do not count.
        """
        sizes = np.minimum(np.diff(self.bounds) - 1, context_length)
        inputs = np.full((len(sizes), int(sizes.max())), padding, np.int64)
        targets = np.full_like(inputs, ignored)
        for row, (size, end) in enumerate(zip(sizes, self.bounds[1:], strict=True)):
            ids = self.tokens[end - size - 1 : end]
            inputs[row, :size] = ids[:-1]
            choice = slice(size - self.lengths[row], size)
            targets[row, choice] = ids[1:][choice]
        return inputs, targets

    def shares(self, log_probabilities: npt.NDArray[np.float64]) -> ChoiceShares:
        """Return the shares of right answers, given the sum of each choice, (N,).

        Of equal scores the first counts; a score that is not finite is the lowest.
        """
        sums = np.where(np.isfinite(log_probabilities), log_probabilities, -np.inf)
        return ChoiceShares(self._share(sums), self._share(sums / self.characters))

    def _share(self, scores: npt.NDArray[np.float64]) -> float:
        begins = np.searchsorted(self.questions, np.arange(len(self.answers)))
        best = [int(part.argmax()) for part in np.split(scores, begins[1:])]
        return float(np.mean(begins + best == self.answers))

    def save(self, path: Any) -> None:
        """Write all arrays to a file of NumPy."""
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> ChoiceSet:
        """Read a file of `save`."""
        with np.load(path) as arrays:
            return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})


def read_choices(file: str, tokenizer: Tokenizer) -> ChoiceSet:
    """Read and encode the questions of a .jsonl file.

    Raises:
        CorpusError: if the file cannot be read or has no questions, or a row is none; or the
            tokenizer lacks a byte.
    """
    (end_of_text,) = tokenizer.encode(tokenizer.end_of_text)
    tokens, bounds = list[int](), [0]
    lengths, characters, questions, answers = (list[int]() for _ in range(4))
    lines = "".join(texts(Path(file), "strict")).split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"data.multiple_choice: {file} line {number}"
        prompt, choices, answer = _question(line, where)
        answers.append(len(lengths) + answer)
        for choice in choices:
            try:
                before, after = _encode_pair(tokenizer, prompt, _DELIMITER + choice)
            except CorpusError as error:
                raise CorpusError(f"{where}: {error}") from error
            if not after:
                raise CorpusError(f"{where}: a choice adds no token to its prompt")
            tokens += [*(before or [end_of_text]), *after]
            bounds.append(len(tokens))
            lengths.append(len(after))
            characters.append(len(choice))
            questions.append(len(answers) - 1)
    if not answers:
        raise CorpusError(f"data.multiple_choice: {file} has no questions; add rows to it")
    arrays = (tokens, bounds, lengths, characters, questions, answers)
    return ChoiceSet(*(np.array(array, np.int64) for array in arrays))


def _question(line: str, where: str) -> tuple[str, list[str], int]:
    """Return prompt, choices and the number of the right one."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where} is not JSON; a .jsonl file has one object on each line") from (
            error
        )
    row = row if isinstance(row, dict) else {}
    prompt, choices, answer = row.get("prompt"), row.get("choices"), row.get("answer")
    if not isinstance(prompt, str):
        raise CorpusError(f"{where} has no text in prompt")
    choices = choices if isinstance(choices, list) else []
    if len(choices) < 2 or not all(isinstance(each, str) and each for each in choices):
        raise CorpusError(f"{where}: choices is not a list of two or more texts")
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise CorpusError(
            f"{where}: answer is not the number of the right choice, from 0 to {len(choices) - 1}"
        )
    return prompt, choices, answer


def _encode_pair(
    tokenizer: Tokenizer, context: str, continuation: str
) -> tuple[list[int], list[int]]:
    """Return the ids of a context and of what follows, which are encoded as one text.

    Source: `TemplateLM._encode_pair` of lm-evaluation-harness: white space at the end of the
    context belongs to what follows.
    """
    kept = context.rstrip()
    whole = tokenizer.encode(context + continuation)
    before = tokenizer.encode(kept) if kept else []
    return before, whole[len(before) :]
