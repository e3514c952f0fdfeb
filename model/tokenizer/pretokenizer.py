r"""Where text may be cut: special tokens, and the pre-tokens that byte-pair merges never cross.

A pattern is written once, for the `regex` module, which knows Unicode's letters (\p{L}) and
numbers (\p{N}). Text without characters above U+FFFF, which is nearly all text, is cut by the same
pattern with the letters and numbers spelled out, compiled for the standard `re`: it finds the same
pre-tokens in half the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache

import regex

_BMP = 1 << 16  # characters that the pattern for `re` knows

# The last pre-tokens of an unfinished text may still change: `'`, `l` become `'ll`, and white
# space gives its last character to the word that follows.
UNSETTLED = 3


class Pattern:
    r"""A rule that cuts a text into pre-tokens; together they are the text.

    Args:
        name: in `PATTERNS`.
        source: for the `regex` module; may use \p{L}, \p{N}, \s and \S.
    """

    def __init__(self, name: str, source: str) -> None:
        self.name, self.source = name, source

    @cached_property
    def unicode(self) -> regex.Pattern[str]:
        """The pattern itself."""
        return regex.compile(self.source)

    @cached_property
    def _bmp(self) -> re.Pattern[str]:
        """The same for texts without characters above U+FFFF."""
        classes = _bmp_classes()
        source = self.source.replace(r"\S", "[^" + classes[r"\s"] + "]")
        # inside brackets a class is its members, outside it is a set of its own
        parts = regex.split(r"(\[(?:[^\]\\]|\\.)*\])", source)
        for name, members in classes.items():
            parts = [
                part.replace(name, members if number % 2 else f"[{members}]")
                for number, part in enumerate(parts)
            ]
        return re.compile("".join(parts))

    def findall(self, text: str) -> list[str]:
        """The pre-tokens of a text, in their order."""
        if text.isascii() or len(text.encode("utf-16-le", "surrogatepass")) == 2 * len(text):
            return self._bmp.findall(text)
        return self.unicode.findall(text)


@lru_cache(maxsize=1)
def _bmp_classes() -> dict[str, str]:
    r"""Members of \p{L}, \p{N} and \s up to U+FFFF, as ranges for a bracket of `re`."""
    characters = "".join(map(chr, range(_BMP)))
    return {
        name: "".join(
            f"\\u{run.start():04x}-\\u{run.end() - 1:04x}"
            for run in regex.finditer(f"{name}+", characters)
        )
        for name in (r"\p{L}", r"\p{N}", r"\s")
    }


PATTERNS: Mapping[str, Pattern] = {
    pattern.name: pattern
    for pattern in (
        # Radford et al. 2019; encoder.py of github.com/openai/gpt-2
        Pattern(
            "gpt2",
            r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        ),
        # cl100k_base of github.com/openai/tiktoken, with its quantifiers made plain
        Pattern(
            "gpt4",
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        # words with the space before them
        Pattern("whitespace", r" ?\S+|\s+(?!\S)|\s+"),
    )
}


def special_pattern(special_tokens: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern with one group that finds special tokens, the longest where several start.

    Raises:
        ValueError: if a special token is empty: it would be found everywhere.
    """
    longest_first = sorted(special_tokens, key=lambda token: (-len(token), token))
    if not longest_first:
        return None
    if not longest_first[-1]:
        raise ValueError("a special token must not be empty")
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})")


def unfinished_special(text: str, start: int, special_tokens: Sequence[str]) -> int:
    """The first place at or after `start` where a longer text might hold a special token."""
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
    """The last place up to `limit` where no pattern's pre-token can reach across; 0 if none is.

    That is before a space that follows something else than white space.
    """
    place = text.rfind(" ", 0, limit)
    while place > 0 and text[place - 1].isspace():
        place = text.rfind(" ", 0, place)
    return max(place, 0)


def cut_stream(
    blocks: Iterable[str], special_tokens: Sequence[str], size: int
) -> Iterator[list[str]]:
    """Cut a stream of text where no pre-token is cut: at special tokens, or else at a space.

    Args:
        blocks: the text, cut anywhere.
        special_tokens: hard boundaries.
        size: characters of a piece; a piece is longer only where there is no place to cut.

    Yields:
        Pieces, each as the texts between its special tokens.
    """
    special = special_pattern(special_tokens)
    held, wanted = "", size
    for block in blocks:
        held += block
        if len(held) < wanted:
            continue
        end = unfinished_special(held, 0, special_tokens)
        parts = special.split(held[:end]) if special else [held[:end]]
        cut = safe_cut(parts[-1], len(parts[-1]))
        held = parts[-1][cut:] + held[end:]
        parts[-1] = parts[-1][:cut]
        if any(parts[::2]):
            yield parts[::2]
        # where nothing could be cut, more is gathered before it is tried again
        wanted = max(size, 2 * len(held))
    if held:
        yield special.split(held)[::2] if special else [held]
