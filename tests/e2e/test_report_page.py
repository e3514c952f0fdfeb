"""The report in a browser: themes, widths, the table, accessibility, and no network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page

from tests.tuner.results.finished_search import result_in
from tests.tuner.scaling.made_runs import made_runs
from tuner.report.write import write_report
from tuner.results.result import SearchResult
from tuner.scaling.laws import fit_laws
from tuner.scaling.optima import smooth
from tuner.scaling.picture import draw_scaling
from tuner.scaling.runs import by_size

DRAWN = "document.documentElement.dataset.drawn === 'true'"
ESCAPED = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return result_in(tmp_path_factory.mktemp("space"), "trials: 24, sampler: random")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, result: SearchResult) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    return write_report(result, path, {result.best.number: f"def close(self):\n    {ESCAPED}"})


class Watched:
    """A page, and all that it complained of or asked for."""

    def __init__(self, context: BrowserContext, file: Path) -> None:
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_function(DRAWN)

    def colour(self, selector: str, name: str) -> str:
        script = f"e => getComputedStyle(e).{name}"
        return str(self.page.locator(selector).first.evaluate(script))


def opened(browser: Browser, file: Path, **options: Any) -> Iterator[Watched]:
    context = browser.new_context(**options)
    yield Watched(context, file)
    context.close()


@pytest.fixture(scope="module")
def desktop(browser: Browser, file: Path) -> Iterator[Watched]:
    yield from opened(browser, file, viewport={"width": 1280, "height": 900})


@pytest.fixture(scope="module")
def phone(browser: Browser, file: Path) -> Iterator[Watched]:
    size = {"width": 390, "height": 844}
    yield from opened(
        browser, file, viewport=size, is_mobile=True, has_touch=True, color_scheme="dark"
    )


@pytest.fixture(autouse=True)
def _quiet(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does, the page asks nothing and complains of nothing."""
    yield
    for name in ("desktop", "phone"):
        if name in request.fixturenames:
            watched = request.getfixturevalue(name)
            assert watched.complaints == []
            assert all(url.startswith(("file:", "data:", "blob:")) for url in watched.asked)


@pytest.mark.slow
def test_page_draws_every_picture(desktop: Watched, result: SearchResult) -> None:
    for plot in desktop.page.locator("[data-figure]").all():
        assert plot.locator("svg.main-svg").count() > 0, plot.get_attribute("data-figure")
    curve = desktop.page.locator("[data-figure=curves] .scatterlayer path.js-line")
    assert curve.count() == sum(len(row.reports) > 1 for row in result.trials) > 5
    bars = desktop.page.locator("[data-figure=rungs] .bars path")
    assert bars.count() >= 18
    assert not desktop.page.get_by_text("Scroll the plot sideways").is_visible()
    legend = desktop.page.locator("[data-legend=curves] li").all_inner_texts()
    assert {"stopped at report 1", "finished", "defaults"} <= {*legend}
    assert desktop.page.locator("pre.sample").inner_text().endswith(ESCAPED)


@pytest.mark.slow
def test_picture_is_saved_for_a_paper(desktop: Watched, tmp_path: Path) -> None:
    """Light, whatever the theme is; with its legend, which the page writes beside the plot."""
    page = desktop.page

    def save(key: str, kind: str) -> Path:
        page.locator(f"figure#{key}").hover()
        with page.expect_download() as download:
            page.locator(f"figure#{key} .save button[value={kind}]").click()
        assert download.value.suggested_filename == f"made-up-1-{key}.{kind}"
        download.value.save_as(tmp_path / "saved")
        return tmp_path / "saved"

    page.get_by_role("button", name="Change to the dark theme").click()
    for key in ("curves", "slice-0", "parallel"):
        with Image.open(save(key, "png")) as picture:
            assert picture.width == 6.5 * 300
            assert picture.convert("RGB").getpixel((1, 1)) == (255, 255, 255)
    text = save("curves", "svg").read_text(encoding="utf-8")
    page.get_by_role("button", name="Change to the light theme").click()
    assert text.startswith("<svg")
    assert re.findall(r'class="legendtext"[^>]*>([^<]+)<', text) == [
        *page.locator("[data-legend=curves] li").all_inner_texts()
    ]


@pytest.mark.slow
def test_legend_of_slices_has_each_mark_once(desktop: Watched) -> None:
    marks = desktop.page.locator("[data-legend^=slice-0] li").all_inner_texts()
    assert {"winner", "defaults", "finished", "stopped"} <= {*marks}
    assert len(marks) == len({*marks})


@pytest.mark.slow
def test_table_sorts_by_click_and_by_keyboard(desktop: Watched, result: SearchResult) -> None:
    page = desktop.page
    heads = page.locator("#table thead th")
    column = heads.all_inner_texts().index("val_loss")

    def values() -> list[float]:
        cells = page.locator(f"#table tbody tr > :nth-child({column + 1})").all_inner_texts()
        return [float("inf") if text == "∞" else float(text) for text in cells]

    first = values()
    rows = [*result.trials, *result.confirming]
    assert first == [pytest.approx(r.objective("val_loss"), abs=1e-4) for r in rows]
    button = page.locator("#table").get_by_role("button", name="val_loss")
    button.click()
    assert heads.nth(column).get_attribute("aria-sort") == "ascending"
    assert heads.first.get_attribute("aria-sort") is None
    assert values() == sorted(first)
    button.focus()
    page.keyboard.press("Enter")
    assert heads.nth(column).get_attribute("aria-sort") == "descending"
    finite = [v for v in sorted(first, reverse=True) if v < float("inf")]
    assert values()[: len(finite)] == finite  # what diverged stays last
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert heads.nth(column + 1).get_attribute("aria-sort") == "ascending"
    outcomes = page.locator(f"#table tbody tr > :nth-child({column + 2})").all_inner_texts()
    assert outcomes == sorted(
        outcomes, key=lambda text: [int(w) if w.isdigit() else w for w in text.split()]
    )
    page.get_by_role("button", name="trial", exact=True).click()
    assert values() == first


@pytest.mark.slow
def test_table_is_filtered_by_words(desktop: Watched, result: SearchResult) -> None:
    page = desktop.page
    page.get_by_label("Filter").fill("STOPPED 3")
    rows = page.locator("#table tbody tr:visible")
    shown_rows = [row for row in rows.all_inner_texts()]
    assert all("stopped" in row and "3" in row for row in shown_rows)
    assert 0 < len(shown_rows) < len(result.trials)
    total = len(result.trials) + len(result.confirming)
    assert page.locator("output").inner_text() == f"{len(shown_rows)} of {total} trials"
    page.get_by_label("Filter").fill("")
    assert rows.count() == total


@pytest.mark.slow
def test_theme_follows_the_system_and_the_button(desktop: Watched) -> None:
    page = desktop.page
    line = "[data-figure=rungs] .xtick text"
    light = desktop.colour("body", "backgroundColor"), desktop.colour(line, "fill")
    assert light[0] == "rgb(255, 255, 255)"
    assert violations(page) == []
    page.get_by_role("button", name="Change to the dark theme").click()
    page.wait_for_function(
        f"getComputedStyle(document.querySelector('{line}')).fill !== '{light[1]}'"
    )
    dark = desktop.colour("body", "backgroundColor"), desktop.colour(line, "fill")
    assert sum(map(int, dark[0][4:-1].split(","))) < 150
    assert violations(page) == []
    page.get_by_role("button", name="Change to the light theme").click()
    page.wait_for_function(
        f"getComputedStyle(document.querySelector('{line}')).fill === '{light[1]}'"
    )
    assert (desktop.colour("body", "backgroundColor"), desktop.colour(line, "fill")) == light


@pytest.mark.slow
def test_page_fits_a_phone(phone: Watched) -> None:
    page = phone.page
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert sum(map(int, phone.colour("body", "backgroundColor")[4:-1].split(","))) < 150
    assert page.get_by_role("button", name="Change to the light theme").is_visible()
    plot = page.get_by_role("region", name="All parameters at once: plot, scrolls sideways")
    assert plot.evaluate("e => e.scrollWidth > e.clientWidth")
    assert page.get_by_text("Scroll the plot sideways").is_visible()
    table = page.get_by_role("region", name="Table of all trials")
    assert table.evaluate("e => e.scrollWidth > e.clientWidth")
    assert table.get_attribute("tabindex") == "0"
    for plot in page.locator("[data-figure]:not([data-figure=parallel])").all():
        box = plot.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    assert violations(page) == []


@pytest.mark.slow
def test_touch_on_plot_scrolls_page(phone: Watched) -> None:
    page = phone.page
    script = "document.querySelector('[data-figure=curves]').scrollIntoView({behavior: 'instant'})"
    page.evaluate(script)
    before, touch = page.evaluate("scrollY"), page.context.new_cdp_session(page)

    def send(kind: str, y: int | None = None) -> None:
        points = [] if y is None else [{"x": 200, "y": y}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    send("touchStart", 300)
    for y in range(288, 48, -12):
        send("touchMove", y)
        page.wait_for_timeout(16)
    send("touchEnd")
    page.wait_for_function(f"scrollY > {before + 100}")


@pytest.mark.slow
def test_page_prints_in_light_and_within_the_paper(desktop: Watched) -> None:
    page = desktop.page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    widths = page.locator("[data-figure] svg.main-svg").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect().right)"
    )
    left = page.evaluate("document.body.getBoundingClientRect().left")
    assert max(widths) - left <= 701
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.className") == ""


@pytest.mark.slow
def test_page_of_pictures_fits_a_phone(browser: Browser, tmp_path: Path) -> None:
    laws = fit_laws(smooth(by_size(made_runs([10**6, 2 * 10**6, 4 * 10**6])), resamples=50))
    draw_scaling(laws, tmp_path / "laws.html", "lm-1, lm-2", {"parameters": 16e6})
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    with context:
        watched = Watched(context, tmp_path / "laws.html")
        page = watched.page
        for plot in page.locator("[data-figure]").all():
            assert plot.locator(".scatterlayer .trace").count() > 1
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        legends = page.locator(".legend").all_inner_texts()
        assert [text.split("\n")[0] for text in legends] == ["1,000,000 weights", "90 % interval"]
        assert page.get_by_role("heading", level=1).inner_text() == "lm-1, lm-2"
        assert violations(page) == []
        assert watched.complaints == []


def violations(page: Page) -> list[str]:
    """What axe-core finds to be serious or worse."""
    found = Axe().run(page).response["violations"]
    bad = [v for v in found if v["impact"] in ("serious", "critical")]
    return [f"{v['id']}: {[node['target'] for node in v['nodes']]}" for v in bad]
