"""Templates of pages: every text is escaped, and its control characters are shown."""

from __future__ import annotations

import json
from typing import Any

import jinja2
from markupsafe import Markup

from tuner.texts.control_characters import visible


def templates_in(package: str, folder: str) -> jinja2.Environment:
    """Return the templates of a folder of a package; `inlined(NAME)` is another file of it."""
    loader = jinja2.PackageLoader(package, folder)
    templates = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals["inlined"] = lambda name: Markup(loader.get_source(templates, name)[0])
    return templates


def embedded(value: Any) -> Markup:
    """Return JSON that cannot end the script element that contains it."""
    return in_script(
        json.dumps(_visible(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    )


def in_script(text: str) -> Markup:
    """Return JSON as a text that cannot end the script element that contains it."""
    for character, code in (("&", "0026"), ("<", "003c"), (">", "003e")):
        text = text.replace(character, f"\\u{code}")
    return Markup(text)


def _visible(value: Any) -> Any:
    """Return JSON with its control characters shown; other values, such as Markup, unchanged."""
    if isinstance(value, dict):
        return {_visible(key): _visible(item) for key, item in value.items()}
    if isinstance(value, list):
        return list(map(_visible, value))
    return visible(value) if type(value) is str else value
