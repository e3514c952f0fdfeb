r"""Control characters of foreign texts, which terminals and pages obey, shown as `\x1b`.

Names, values and messages may come from the store, the data or the home of somebody else. Raw, an
escape sequence in one of them could change the title of a terminal, hide text, or write to the
clipboard; a bidirectional override could show a name backwards.
"""

from __future__ import annotations

import re

# C0 without tab and line feed, DEL and C1; marks and overrides of the direction of text; separators
# of lines and paragraphs; the surrogates by which Python marks bytes that are not UTF-8
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""Return a text with `\x1b` or `\u202e` in place of its control characters.

    Tabs and line feeds stay.
    """
    return _CONTROLS.sub(_escaped, text)


def in_one_line(text: str) -> str:
    r"""Return a text as `visible`, with `\n` and `\t` for its line feeds and tabs."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def in_json(text: str) -> str:
    r"""Return JSON with `\u202e` in place of the control characters of its texts.

    JSON has no others, so the value is the same. Tabs and line feeds stay.
    """
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
