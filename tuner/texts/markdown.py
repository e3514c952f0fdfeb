r"""Foreign texts in Markdown: a name stands as it is, and does not become a link or HTML.

    prose   in a sentence: characters that Markdown or HTML would read are escaped
    code    as code, where nothing is read; for names of files

Both are one line: control characters are shown, a line feed as `\n`.
"""

from __future__ import annotations

import re

from tuner.texts.control_characters import in_one_line

_READ = re.compile(r"[\\`*_\[\]<>&~#]")
_TICKS = re.compile("`+")


def prose(text: object) -> str:
    """Return a text for a sentence or a heading."""
    return _READ.sub(r"\\\g<0>", in_one_line(str(text)))


def code(text: object) -> str:
    """Return a text as code, between more backticks than it has side by side."""
    line = in_one_line(str(text))
    fence = "`" * (1 + max(map(len, _TICKS.findall(line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def cell(text: str) -> str:
    """Return a text of Markdown for a cell of a table."""
    return text.replace("|", "\\|")
