"""A picture of MLflow's page that `tuner ui` opens, for the docs.

python -m tests.e2e.mlflow_picture runs docs/mlflow.png      of the newest search of a home
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, ViewportSize

SIZE = ViewportSize(width=1600, height=1000)


def take_picture(page: Page, path: Path) -> None:
    """Of a page with charts, once these are drawn."""
    page.get_by_role("button", name="Close", exact=True).click()  # MLflow's assistant
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot .trace').length > 0")
    page.wait_for_timeout(2000)  # they have grown by what the assistant took
    page.screenshot(path=path)


def main(home: str, path: str) -> None:
    """Serve a home, and take the picture."""
    from tests.browser import browser
    from tests.e2e.postgres import mlflow_server
    from tuner.home.home import Home
    from tuner.publish.mlflow_pages import trials_page
    from tuner.tracking.record import Record

    of = Home.of(home)
    shown = trials_page(Record(of.tracking_uri).search())
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "artifacts")
        with mlflow_server(of.tracking_uri, log) as root:
            for opened in browser.__wrapped__():
                page = opened.new_page(viewport=SIZE)
                page.goto(f"{root}/{shown}")
                page.locator(".js-plotly-plot").first.wait_for(timeout=60_000)
                take_picture(page, Path(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
