"""Scripts and styles of the pages: ours, the colours and the style of the report, vendored ones.

They are read once. Their digest is part of their address, so that browsers may keep them for good.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import Request, Response

from tuner.errors import RecordError
from tuner.report.palette import css_variables
from tuner.texts.formatting import shown

_TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_KEPT = "public, max-age=31536000, immutable"
_STYLE = "style.css"
_SHEETS = (
    "uPlot.min.css",
    "page.css",
    "frame.css",
    "design.css",
)  # the later one has the last word


@dataclass(frozen=True)
class PageFiles:
    """The files by name.

    Attributes:
        contents: name → bytes.
        zipped: name → the same for browsers that can unzip.
        version: digest of all of them.
    """

    contents: Mapping[str, bytes]
    zipped: Mapping[str, bytes]
    version: str

    @classmethod
    def read(cls) -> PageFiles:
        """Read the files of the package."""
        room = files("tuner.serve.pages")
        parts = {
            each.name: each.read_bytes()
            for folder in ("vendored", "static") for each in sorted_files(room / folder)
            if each.name.rpartition(".")[2] in _TYPES
        }  # fmt: skip
        for name in ("page.css", "legend.js"):
            parts[name] = (files("tuner.report") / "page" / name).read_bytes()
        sheets = [palette().encode(), *(parts.pop(name) for name in _SHEETS)]
        parts[_STYLE] = b"\n".join(sheets)
        digest = hashlib.sha256(json.dumps([*parts]).encode() + b"".join(parts.values()))
        zipped = {name: gzip.compress(data, mtime=0) for name, data in parts.items()}
        return cls(parts, zipped, digest.hexdigest()[:16])

    def path(self, name: str) -> str:
        """Return the path of a file on the server."""
        if name not in self.contents:
            raise KeyError(name)
        return f"/static/{self.version}/{name}"

    def answer(self, request: Request, version: str, name: str) -> Response:
        """Return a file.

        Raises:
            RecordError: if there is none of this name.
        """
        if name not in self.contents:
            raise RecordError(f"there is no file {shown(name)}")
        data, headers = self.contents[name], {"Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            data = self.zipped[name]
            headers["Content-Encoding"] = "gzip"
        if version == self.version:  # else the page is older than the server
            headers["Cache-Control"] = _KEPT
        return Response(data, media_type=_TYPES[name.rpartition(".")[2]], headers=headers)


def palette() -> str:
    """Return the colours of the report as CSS: light, dark, and as the reader chose."""
    light, dark = css_variables()
    return (
        f":root {{ {light} color-scheme: light; }}\n@media (prefers-color-scheme: dark) "
        f'{{ :root:not([data-theme="light"]) {{ {dark} color-scheme: dark; }} }}\n'
        f':root[data-theme="dark"] {{ {dark} color-scheme: dark; }}'
    )


def sorted_files(folder: Traversable) -> list[Traversable]:
    """Return the files of a folder, by name."""
    return sorted((each for each in folder.iterdir() if each.is_file()), key=lambda each: each.name)
