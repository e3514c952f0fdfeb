"""Screenshots of a report for the documentation: light, dark, and on a phone.

    tuner report -o report.html && python bench/report_shots.py report.html

The pictures are written to docs/ as report-light.png, report-dark.png and report-phone.png. The
first two show the page from the top; the last shows the first screens of a phone side by side.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

DOCS = Path(__file__).resolve().parents[1] / "docs"
WIDTH = 1200  # pixels
PHONE, SCREENS, GAP = (390, 844), 5, 24  # pixels, how many side by side, between them
ENDS_BEFORE = "#matters"  # a desktop's picture


def shot(browser: Browser, report: Path, **options: Any) -> Image.Image:
    """Return a picture of the page down to a section, or of the screens of a phone."""
    with browser.new_context(**options) as context:
        page = context.new_page()
        page.goto(report.resolve().as_uri())
        page.wait_for_function("document.documentElement.dataset.drawn === 'true'")
        box = page.locator(ENDS_BEFORE).bounding_box()
        whole = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    if options.get("is_mobile") or box is None:
        return side_by_side(whole)
    return whole.crop((0, 0, WIDTH, round(box["y"])))


def side_by_side(long: Image.Image) -> Image.Image:
    """The first screens of a phone."""
    width, height = PHONE
    sheet = Image.new("RGB", (SCREENS * width + (SCREENS - 1) * GAP, height), "#8a8f98")
    for index in range(SCREENS):
        part = long.crop((0, index * height, width, (index + 1) * height))
        sheet.paste(part, (index * (width + GAP), 0))
    return sheet


def main() -> int:
    """Take all three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("report", type=Path, help="as tuner report writes it")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder (default: docs)")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        desktop = {"viewport": {"width": WIDTH, "height": 900}}
        phone = {"viewport": dict(zip(("width", "height"), PHONE, strict=True)), "is_mobile": True}
        pictures = {
            "light": shot(browser, options.report, **desktop, color_scheme="light"),
            "dark": shot(browser, options.report, **desktop, color_scheme="dark"),
            "phone": shot(browser, options.report, **phone, color_scheme="light"),
        }
        browser.close()
    for name, picture in pictures.items():
        path = options.out / f"report-{name}.png"
        # 256 colours by coverage: the median cut would make the few green points grey
        small = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        small.save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
