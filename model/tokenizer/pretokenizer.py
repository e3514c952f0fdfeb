r"""Cutting of text: at special tokens, and into pre-tokens, which byte-pair merges never cross.

A pattern is written for the `regex` module, which knows Unicode's letters (\p{L}) and numbers
(\p{N}). For text without characters above U+FFFF, which is nearly all text, the pattern is
translated to the standard `re` with letters and numbers spelled out: it finds equal pre-tokens in
half the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Literal

import regex

# Before which texts a space is put: those after special tokens as well, or the first one only.
Prefix = Literal["every", "first"]

_BMP = 1 << 16  # code points that the pattern for `re` covers

# Number of pre-tokens at the end of an unfinished text that later text may change: `'`, `l` become
# `'ll`, and the last character of white space joins the next word.
UNSETTLED = 3


class Pattern:
    r"""A rule that cuts a text into pre-tokens; together they are the text.

    Args:
        name: key in `PATTERNS`.
        source: for the `regex` module; may use \p{L}, \p{N}, \s and \S.
        is_composed: True if the text is brought to Unicode's form NFC before.
        takes_whole: True if a pre-token that is in the vocabulary is its token, whatever the merges
            would make of it.
        prefix: of tokens as in `metaspace`, the texts before which a space is put; None for
            byte-level tokens.
    """

    def __init__(
        self,
        name: str,
        source: str,
        *,
        is_composed: bool = False,
        takes_whole: bool = False,
        prefix: Prefix | None = None,
    ) -> None:
        self.name, self.source, self.prefix = name, source, prefix
        self.is_composed, self.takes_whole = is_composed, takes_whole

    @cached_property
    def unicode(self) -> regex.Pattern[str]:
        """The pattern, compiled for the `regex` module."""
        return regex.compile(self.source)

    @cached_property
    def _bmp(self) -> re.Pattern[str]:
        """The pattern, compiled for `re` and for texts without characters above U+FFFF."""
        classes = _bmp_classes()
        source = self.source.replace(r"\S", "[^" + classes[r"\s"] + "]")
        # Inside brackets a class is replaced by its members, outside by a set of them.
        parts = regex.split(r"(\[(?:[^\]\\]|\\.)*\])", source)
        for name, members in classes.items():
            parts = [
                part.replace(name, members if number % 2 else f"[{members}]")
                for number, part in enumerate(parts)
            ]
        return re.compile("".join(parts))

    def findall(self, text: str) -> list[str]:
        """Return the pre-tokens of a text, in order."""
        if text.isascii() or len(text.encode("utf-16-le", "surrogatepass")) == 2 * len(text):
            return self._bmp.findall(text)
        return self.unicode.findall(text)


@lru_cache(maxsize=1)
def _bmp_classes() -> dict[str, str]:
    r"""Return the members of \p{L}, \p{N} and \s up to U+FFFF, as ranges for a bracket of `re`."""
    characters = "".join(map(chr, range(_BMP)))
    return {
        name: "".join(
            f"\\u{run.start():04x}-\\u{run.end() - 1:04x}"
            for run in regex.finditer(f"{name}+", characters)
        )
        for name in (r"\p{L}", r"\p{N}", r"\s")
    }


# cl100k_base of github.com/openai/tiktoken, with ordinary instead of possessive quantifiers; Qwen2
# cuts numbers into digits
_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

PATTERNS: Mapping[str, Pattern] = {
    pattern.name: pattern
    for pattern in (
        # Radford et al. 2019; encoder.py of github.com/openai/gpt-2
        Pattern(
            "gpt2",
            r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        ),
        Pattern("gpt4", _CL100K.replace("DIGITS", "{1,3}")),
        # Llama 3: tokenizer.json has ignore_merges
        Pattern("llama3", _CL100K.replace("DIGITS", "{1,3}"), takes_whole=True),
        Pattern("qwen2", _CL100K.replace("DIGITS", ""), is_composed=True),
        # SmolLM2: digits apart, and then GPT-2's rule for the text between them, which ends there
        Pattern(
            "smollm",
            r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+",
        ),
        # SentencePiece cuts nothing; no token of these models has a space behind another character
        Pattern("llama2", r" *[^ ]+| +", prefix="every"),
        Pattern("mistral", r" *[^ ]+| +", prefix="first"),
        # words with the space before them
        Pattern("whitespace", r" ?\S+|\s+(?!\S)|\s+"),
    )
}


def special_pattern(special_tokens: Iterable[str]) -> re.Pattern[str] | None:
    """Build a pattern with one group that finds special tokens, the longest if several match.

    Raises:
        ValueError: if a special token is empty: it would match everywhere.
    """
    longest_first = sorted(special_tokens, key=lambda token: (-len(token), token))
    if not longest_first:
        return None
    if not longest_first[-1]:
        raise ValueError("a special token must not be empty")
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})")


def unfinished_special(text: str, start: int, special_tokens: Sequence[str]) -> int:
    """Return the first place from `start` on where more text could complete a special token."""
    longest = max(map(len, special_tokens), default=0)
    first = {token[0] for token in special_tokens}
    for place in range(max(start, len(text) - longest + 1), len(text)):
        if text[place] not in first:
            continue
        end = text[place:]
        if any(token.startswith(end) and token != end for token in special_tokens):
            return place
    return len(text)


def safe_cut(text: str, limit: int) -> int:
    """Return the last place up to `limit` that no pattern's pre-token can cross; 0 if none.

    Such a place is before a space that follows a character other than white space.
    """
    place = text.rfind(" ", 0, limit)
    while place > 0 and text[place - 1].isspace():
        place = text.rfind(" ", 0, place)
    return max(place, 0)


def cut_stream(
    blocks: Iterable[str], special_tokens: Sequence[str], size: int
) -> Iterator[list[str]]:
    """Cut a stream of text between pre-tokens: at special tokens, or else at a space.

    Args:
        blocks: the text, cut anywhere.
        special_tokens: texts that pre-tokens never cross.
        size: characters of a piece; a piece is longer only if it has no place to cut.

    Yields:
        Pieces, each as the texts between its special tokens.
    """
    special = special_pattern(special_tokens)
    buffer, wanted = "", size
    for block in blocks:
        buffer += block
        if len(buffer) < wanted:
            continue
        end = unfinished_special(buffer, 0, special_tokens)
        parts = special.split(buffer[:end]) if special else [buffer[:end]]
        cut = safe_cut(parts[-1], len(parts[-1]))
        buffer = parts[-1][cut:] + buffer[end:]
        parts[-1] = parts[-1][:cut]
        if any(parts[::2]):
            yield parts[::2]
        # If nothing could be cut, the buffer doubles before the next attempt.
        wanted = max(size, 2 * len(buffer))
    if buffer:
        yield special.split(buffer)[::2] if special else [buffer]


def at_most(size: int, pieces: Iterable[str]) -> Iterator[str]:
    """Cut pieces of text into pieces of at most some size."""
    for piece in pieces:
        for start in range(0, len(piece), size):
            yield piece[start : start + size]


def slices(text: str, size: int) -> Iterator[str]:
    """Cut a text into slices between pre-tokens, so that few pre-tokens are in memory at once."""
    start = 0
    while len(text) - start > size:
        piece = text[start : start + size]
        # Without a place to cut, the rest is one slice.
        cut = safe_cut(piece, size)
        if not cut:
            break
        yield piece[:cut]
        start += cut
    yield text[start:]
