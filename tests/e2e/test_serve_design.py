"""New search, Compare, Machines and Users in a browser: one server, played drivers."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.tuner.serve.conftest import SPACE
from tests.tuner.serve.played import PlayedServer
from tuner.home.home import Home

pytestmark = pytest.mark.slow
PAGES = ("/new", "/compare?search=one&search=two", "/machines", "/users")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[PlayedServer]:
    """A server with a search that has finished, and one that runs."""
    server = PlayedServer(Home.of(tmp_path_factory.mktemp("design") / "home"))
    page = browser.new_page()
    page.goto("about:blank")
    while not server._server.started:
        page.wait_for_timeout(20)
    for seed, name in enumerate(("one", "two")):
        body = (SPACE % seed).encode()
        request = urllib.request.Request(f"{server.url}/api/v1/searches?name={name}", body)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["name"] == name
    while len(server.drivers) < 2:
        page.wait_for_timeout(20)
    page.close()
    while server.drivers["one"].play(50):
        pass
    server.drivers["two"].play(3)
    yield server
    server.close()


@pytest.fixture
def page(browser: Browser, server: PlayedServer) -> Iterator[Page]:
    """A page that asks nobody else, and complains of nothing but refused requests."""
    page = browser.new_page()
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    page.close()
    refused = ("Failed to load resource", "[DOM] Password forms")  # the latter a hint on logins
    assert [each for each in complaints if not each.startswith(refused)] == []
    assert [url for url in asked if not url.startswith((server.url, "data:"))] == []


def test_form_and_text_say_the_same_and_become_a_search(page: Page, server: PlayedServer) -> None:
    page.goto(f"{server.url}/new")
    text, submit = page.locator("#text"), page.get_by_role("button", name="Submit")
    expect(page.get_by_text("lm is a valid space")).to_be_visible()
    expect(page.locator("#priors svg")).to_have_count(8)
    expect(page.locator("#cost")).to_contain_text("training tokens")
    text.fill("name: mine\nbudgett: {tokens: 9}\n")
    expect(page.locator("#mistakes")).to_have_text("2:1 unknown key budgett; did you mean budget?")
    expect(page.locator(".editor .wrong")).to_have_text("2")
    expect(submit).to_be_disabled()
    page.get_by_role("button", name="2:1").click()
    assert text.evaluate("e => e.selectionStart") == len("name: mine\n")
    text.fill(f"# of mine\n{SPACE % 77}")
    expect(page.get_by_text("lm is a valid space")).to_be_visible()
    trials = page.locator('[name="search.trials"]')
    trials.fill("4")
    trials.press("Tab")
    expect(text).to_have_value(f"# of mine\n{SPACE % 77}".replace("trials: 3", "trials: 4"))
    page.get_by_label("Kind of α_max").select_option("choice")
    expect(page.get_by_label("values, apart by commas of α_max")).to_have_value("0.0001, 0.1")
    page.get_by_label("Add a hyperparameter").select_option("weight_decay")
    page.get_by_label("Kind of λ").select_option("log")
    page.get_by_label("low end of λ").fill("-1")
    page.get_by_label("low end of λ").press("Tab")
    expect(page.locator("#mistakes")).to_contain_text("5:13 λ: the low end must be above 0")
    page.get_by_label("low end of λ").fill("0.01")
    page.get_by_label("low end of λ").press("Tab")
    expect(submit).to_be_enabled()
    page.get_by_label("Name", exact=True).fill("mine")
    submit.click()
    page.wait_for_url(f"{server.url}/searches/mine")
    kept = server.database.search("mine")
    assert kept is not None
    assert kept.space_text.startswith("# of mine\nname: lm\n")
    assert "λ: {log: [0.01, " in kept.space_text
    page.goto(f"{server.url}/new?fork=mine")
    expect(page.get_by_role("heading", name="Fork of mine")).to_be_visible()
    page.get_by_role("button", name="Submit the fork").click()
    expect(page.get_by_text("Mine is a search of the same space.")).to_be_visible()


def test_searches_are_compared(page: Page, server: PlayedServer) -> None:
    page.goto(f"{server.url}/compare")
    for name in ("one", "none", "two"):
        page.get_by_label("Add a search").fill(name)
        page.keyboard.press("Enter")
    expect(page.get_by_text("There is no search none.")).to_be_visible()
    page.get_by_role("button", name="Leave out none").click()
    expect(page.get_by_role("heading", name="Nobody can say which is better")).to_be_visible()
    expect(page.get_by_role("region", name="Settings that differ")).to_contain_text("search.seed")
    expect(page.locator("path.line.kind-0").last).to_be_attached()
    assert page.url == f"{server.url}/compare?search=one&search=two"
    page.goto(f"{server.url}/machines")
    expect(page.locator("#devices .used").first).to_contain_text("of")
    expect(page.locator("#load progress").first).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_are_accessible_and_fit_a_phone(
    browser: Browser, server: PlayedServer, theme: str
) -> None:
    page = browser.new_page(color_scheme=theme, viewport={"width": 390, "height": 800})  # type: ignore[arg-type]
    for path in PAGES:
        page.goto(f"{server.url}{path}")
        ready = {"/new": "#priors svg", PAGES[1]: "svg.drawing"}.get(path, "main h2")
        page.locator(ready).first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        found = Axe().run(page).response["violations"]
        assert [(each["id"], each["nodes"][0]["target"]) for each in found] == [], path
    page.close()


def test_first_admin_is_made_on_the_page(page: Page, server: PlayedServer) -> None:
    """The last test: from the first user on, the server asks for tokens."""
    page.goto(f"{server.url}/users")
    page.get_by_role("button", name="Add a user").click()
    page.get_by_label("Name").fill("root")
    page.get_by_role("dialog").get_by_role("button", name="Add").click()
    token = page.locator("code.token").inner_text()
    page.get_by_role("button", name="I have kept it").click()
    page.wait_for_url("**/login?next=*")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Add a user").click()
    page.get_by_label("Name").fill("ann")
    page.get_by_role("dialog").get_by_role("button", name="Add").click()
    page.get_by_role("button", name="I have kept it").click()
    page.get_by_role("button", name="Disable ann").click()
    page.get_by_role("dialog").get_by_role("button", name="Disable").click()
    expect(page.locator("tr[data-row=ann]")).to_contain_text("disabled")
    expect(page.locator("#audit")).to_contain_text("disable user")
