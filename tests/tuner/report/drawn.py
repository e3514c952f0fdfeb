"""Plots of a written page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def drawn(page: Path) -> dict[str, Any]:
    """Figures of a page by name, as Plotly's script reads them."""
    text = page.read_text(encoding="utf-8")
    (figures,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', text)
    value: dict[str, Any] = json.loads(figures)
    return value
