"""Tokens of parts of a text: which ids of an encoded text belong to some of its characters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from unicodedata import normalize

import numpy as np
import numpy.typing as npt

from model.tokenizer import metaspace
from model.tokenizer.library import LibraryTokenizer
from model.tokenizer.pretokenizer import PATTERNS
from model.tokenizer.token_table import Ids
from model.tokenizer.tokenizer import Tokenizer

Bools = npt.NDArray[np.bool_]


def encode_spans(
    tokenizer: Tokenizer, text: str, spans: Sequence[tuple[int, int]]
) -> tuple[Ids, Bools]:
    """Encode a text, and mark the tokens of some of its parts.

    Args:
        tokenizer: encoder.
        text: a text, in which special tokens are tokens.
        spans: begin and end of each part, in characters.

    Returns:
        The ids of `encode_numpy`; and for each True if it holds a character of a part, or some
        bytes of one.

    Raises:
        CorpusError: if the text has a byte that is missing from the vocabulary.
    """
    if isinstance(tokenizer, LibraryTokenizer):
        return tokenizer.encode_spans(text, spans)
    spelled = _as_spelled(tokenizer)
    found: list[Ids] = []
    marks: list[Bools] = []
    place = 0
    for part, ids in tokenizer.encode_parts(text):
        tokens = [tokenizer.vocab[i] for i in ids.tolist()]
        ends = np.cumsum([len(token) for token in tokens], dtype=np.int64)
        begins = ends - [len(token) for token in tokens]
        marked = np.zeros(len(ids), np.bool_)
        # of a space that the tokenizer puts before a text
        lead = (int(ends[-1]) if len(ends) else 0) - len(_utf8(spelled(part)))
        for begin, end in spans:
            if begin < place + len(part) and end > place:
                head = spelled(part[: max(0, begin - place)])
                low = lead + len(_utf8(head)) if begin > place else 0
                high = lead + len(_utf8(spelled(part[: end - place])))
                marked |= (ends > low) & (begins < high)
        found.append(ids)
        marks.append(marked)
        place += len(part)
    return np.concatenate(found), np.concatenate(marks)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _as_spelled(tokenizer: Tokenizer) -> Callable[[str], str]:
    """Return the function from a text to the text that its tokens spell."""
    pattern = PATTERNS[tokenizer.pattern]
    if pattern.prefix:
        return lambda text: text.replace(metaspace.MARK, " ")
    if pattern.is_composed:
        return lambda text: normalize("NFC", text)
    return str
