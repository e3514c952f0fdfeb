"""Tokens in colours."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from rich.text import Text

from model.tokenizer.tokenizer import Tokenizer
from tuner.texts.control_characters import visible

_BACKGROUNDS = ("color(24)", "color(94)", "color(22)", "color(89)", "color(60)")  # in turn


def coloured(tokenizer: Tokenizer, ids: Sequence[int]) -> Text:
    """Return tokens side by side, neighbours in different colours, special tokens inverted.

    White space is made visible: `·` for a space, `⏎` for a line break, `→` for a tab. Bytes that
    are not a complete character are shown as `<e6>`.
    """
    special = {token.encode() for token in tokenizer.special_tokens}
    text = Text()
    for number, token in enumerate(map(tokenizer.vocab.__getitem__, ids)):
        if token in special:
            text.append(visible(token.decode()), Style(reverse=True, bold=True))
        else:
            background = _BACKGROUNDS[number % len(_BACKGROUNDS)]
            text.append(_visible(token), Style(color="white", bgcolor=background))
    return text


def _visible(token: bytes) -> str:
    text = "".join(
        f"<{ord(character) - 0xDC00:02x}>" if "\udc80" <= character <= "\udcff" else character
        for character in token.decode("utf-8", "surrogateescape")
    )
    text = text.translate({ord(" "): "·", ord("\t"): "→", ord("\r"): "␍", ord("\n"): "⏎\n"})
    return visible(text)
