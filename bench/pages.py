"""The pages of a server in a browser: how soon something is seen, and how fluent it stays.

    python bench/pages.py                   10,000 curves, about a minute
    python bench/pages.py --quick           few curves, as a test of the bench
    python bench/pages.py --out FILE.json

Chromium draws without a graphics card. The first paints are of a search of 24 trials, the cache is
cold. Frames are those of the curves of a page, given as many curves as stated, each of as many
points as the server sends of that many curves, while 20 reports a second are added.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from parts import measuring
from parts.load.searches import write_search
from playwright.sync_api import Browser, sync_playwright
from serve import TRIALS, Server

from tuner.home.home import Home
from tuner.serve.pages.files import PageFiles

FULL = {"curves": 10_000, "points": 10, "loads": 10, "seconds": 8}
QUICK = {"curves": 200, "points": 10, "loads": 2, "seconds": 1}
GOALS = {"paint": "< 1,000 ms", "scripts": "< 300 kB", "frame": "< 50 ms"}
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
FRAMES = """async ({ curves, points, seconds }) => {
  const at = document.querySelector('script[type=module]').src.replace(/[^/]+$/, '');
  const { curvesIn } = await import(`${at}curves.js`);
  const place = document.createElement('div');
  document.querySelector('main').prepend(place);
  scrollTo(0, 0);
  const made = curvesIn(place, 'measured', 'measured', () => {});
  const tokens = Array.from({ length: points }, (_, i) => (i + 1) * 1000);
  const all = Array.from({ length: curves }, (_, n) => ({
    trial: n, tokens: [...tokens], place: points, ending: n % 20 ? 'finished' : '',
    values: tokens.map((each) => 3 + ((n * 7919) % 1000) / 500 + 2000 / (each + (n % 97) * 20)),
  }));
  made.describe({ metric: 'val_loss', best: 0, defaults: 1, num_places: 2 * points, shades: [],
    values: { low: 3, high: 6, is_log: false } });
  const frame = () => new Promise(requestAnimationFrame);
  await frame();
  const began = performance.now();
  made.set(all);
  const drawing = [];
  for (let before = performance.now(), quiet = 0; quiet < 3;) {
    await frame();
    const now = performance.now();
    drawing.push(now - before);
    quiet = now - before < 20 ? quiet + 1 : 0;
    before = now;
  }
  const drawn = performance.now() - began;
  const frames = [];
  let [before, next, count] = [performance.now(), 0, 0];
  const end = before + 1000 * seconds;
  while (before < end) {
    if (before >= next) {
      const n = (20 * count) % curves;
      made.add(n, (points + 1 + Math.floor((20 * count) / curves)) * 1000, 3.5, { ending: '' });
      [next, count] = [before + 50, count + 1];
    }
    await frame();
    const now = performance.now();
    frames.push(now - before);
    before = now;
  }
  place.remove();
  return { drawing, drawn, frames };
}"""


def measure(folder: Path, size: dict[str, int]) -> dict[str, Any]:
    """Return the numbers of the pages."""
    home = Home.of(folder / "home")
    write_search(home, "s-0", TRIALS, 0)
    server = Server(home.root)
    try:
        with sync_playwright() as playwright:
            options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=options
            )
            paints = {
                path: statistics.median(
                    first_paint(browser, server, path) for _ in range(size["loads"])
                )
                for path in ("/", "/searches/s-0", "/searches/s-0/trials/0")
            }
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{server.port}/searches/s-0")
            page.wait_for_load_state("load")
            frames = page.evaluate(FRAMES, size)
            browser.close()
    finally:
        server.close()
    scripts = {n: len(data) for n, data in PageFiles.read().contents.items() if n.endswith(".js")}
    return {"paints": paints, "scripts": sum(scripts.values()), **frames, **size}


def first_paint(browser: Browser, server: Server, path: str) -> float:
    """Return the milliseconds to the first contentful paint, without a cache."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}{path}")
    page.wait_for_function(PAINT)
    paint = float(page.evaluate(PAINT))
    context.close()
    return paint


def result_of(numbers: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Return the result of numbers."""
    n = numbers
    frames = sorted(n["frames"])
    rows = [
        *([f"first contentful paint of {path}, ms", ms, GOALS["paint"]]
          for path, ms in n["paints"].items()),
        ["JavaScript, kB", n["scripts"] / 1000, GOALS["scripts"]],
        ["all curves drawn after, ms", n["drawn"], ""],
        ["longest frame meanwhile, ms", max(n["drawing"]), GOALS["frame"]],
        ["frame while reports come, median, ms", statistics.median(frames), GOALS["frame"]],
        ["the same, p95, ms", frames[int(0.95 * (len(frames) - 1))], GOALS["frame"]],
        ["the same, longest, ms", frames[-1], GOALS["frame"]],
    ]  # fmt: skip
    title = f"Pages, and {n['curves']:,} curves of {n['points']} points"
    return {
        "bench": "pages",
        "about": about,
        "tables": [{"title": title, "columns": ["what", "measured", "goal"], "rows": rows}],
        "goals": [],
        "notes": [],
        "numbers": numbers,
    }


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    measuring.add_options(parser, "few curves", has_picture=False)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tuner-pages-") as folder:
        numbers = measure(Path(folder), QUICK if options.quick else FULL)
    about = measuring.about(["fastapi", "playwright"], rehearsal=options.quick)
    measuring.finish(result_of(numbers, about), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
