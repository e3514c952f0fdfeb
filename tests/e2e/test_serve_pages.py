"""The pages of the server in a browser: one server, one Chromium, drivers that the tests play."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.tuner.serve.conftest import SPACE as SHORT
from tests.tuner.serve.played import PlayedServer
from tuner.home.home import Home
from tuner.serve.access import new_user
from tuner.serve.records import QueuedSearch
from tuner.texts.control_characters import visible

pytestmark = pytest.mark.slow
SPACE = """\
name: lm
hyperparameters:
  α_max: {log: [1e-4, 1e-1]}
  B: {choice: [8, 16]}
model: {context_length: 32}
budget: {tokens: 27_000, reports: 9}
engine: {workers: 1}
search: {trials: 12, sampler: random, scheduler: asha, seed: %d}
"""
HOSTILE = "<img src=x onerror=alert(1)>\u202e\x1b[2Jשלום"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayedServer]:
    server = PlayedServer(Home.of(tmp_path_factory.mktemp("pages") / "home"))
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _emptied(server: PlayedServer) -> Iterator[None]:
    """After each test nothing runs and nothing waits."""
    yield
    for entry in server.database.active():
        server.database.change(entry.name, wanted="stop")
    for played in [each for each in server.drivers.values() if each.exit_status is None]:
        played.end("interrupted")
    for _ in range(20):
        if not server.database.active():
            return
        server.dispatcher.wake(0.5)
    raise AssertionError(server.database.active())


def submit(server: PlayedServer, name: str, token: str = "", **query: str) -> None:
    words = "&".join(f"{key}={value}" for key, value in {"name": name, **query}.items())
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    space = SPACE % sum(name.encode())
    request = urllib.request.Request(
        f"{server.url}/api/v1/searches?{words}", space.encode(), headers
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer)["name"] == name


def driver(page: Page, server: PlayedServer, name: str) -> Any:
    """The driver of a search, once the queue has started it."""
    for _ in range(200):
        if name in server.drivers:
            return server.drivers[name]
        page.wait_for_timeout(50)
    raise AssertionError(f"{name} was not started")


@pytest.fixture(scope="module")
def finished(server: PlayedServer, browser: Browser) -> str:
    """A search that has finished."""
    submit(server, "done")
    page = browser.new_page()
    played = driver(page, server, "done")
    page.close()
    while played.play(50):
        pass
    server.dispatcher.wake(0.5)
    return "done"


@contextmanager
def opened(browser: Browser, path: str, server: PlayedServer, **options: Any) -> Iterator[Page]:
    """A page that asks nobody else, and complains of nothing."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page = context.new_page()
    complaints: list[str] = []
    asked: list[str] = []
    hints = "[DOM] "  # on forms of passwords, for which a token is no name
    page.on("console", lambda said: said.text.startswith(hints) or complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{server.url}{path}")
    yield page
    # what a browser says of requests without an answer, which a test wants
    context.close()
    assert [each for each in complaints if "Failed to load resource" not in each] == []
    assert [url for url in asked if not url.startswith((server.url, "data:"))] == []


def live(page: Page) -> None:
    expect(page.locator("#live")).to_have_text("live")


def test_search_is_watched_paused_resumed_and_taken_home(
    browser: Browser, server: PlayedServer, tmp_path: Path
) -> None:
    with opened(browser, "/", server) as page:
        live(page)
        submit(server, "watched")
        card = page.locator("li[data-row=watched]")
        expect(card.locator(".state")).to_have_text("running")
        played = driver(page, server, "watched")
        played.play(3)
        expect(card.get_by_text("of 12 trials")).to_be_visible()
        expect(card.locator(".numbers")).to_contain_text("best")

        card.get_by_role("link", name="watched").click()
        live(page)
        expect(page.locator("#events")).to_contain_text("trial 0 reports val_loss 5.7")
        played.play(1)
        number = len(played.journal.entries)
        expect(page.locator(f'#events li[value="{number}"]')).to_have_count(1)
        expect(page.locator("#tiles .winner .number")).to_be_visible()
        expect(page.locator("#trials tbody tr")).not_to_have_count(0)

        trial = page.context.new_page()
        trial.goto(f"{server.url}/searches/watched/trials/0")
        live(trial)
        page.get_by_role("button", name="Pause watched").click()
        expect(page.locator("#state .state")).to_have_text("pausing")
        assert not played.play()
        expect(page.locator("#state .state")).to_have_text("paused")
        before = len(played.journal.entries)
        page.get_by_role("button", name="Resume watched").click()
        expect(page.locator("#state .state")).to_have_text("running")
        again = server.drivers["watched"]
        assert again is not played
        assert len(again.journal.entries) > before
        while again.play(50):
            pass
        expect(trial.locator("#about")).to_contain_text("finished", timeout=15_000)
        trial.close()
        expect(page.locator("#state .state")).to_have_text("finished")
        expect(page.locator("#prose li").first).to_be_visible()
        expect(page.locator("#headline")).to_contain_text("than the defaults")
        expect(page.locator("#trials output")).to_have_text(re.compile(r"^(\d+) of \1 trials$"))

        with page.expect_download() as download:
            page.locator("#files").get_by_role("link", name="space.yaml").click()
        download.value.save_as(tmp_path / "space.yaml")
        text = (tmp_path / "space.yaml").read_text(encoding="utf-8")
        assert text == SPACE % sum(b"watched")
        page.get_by_label("Filter").fill("finished")
        ended = page.locator("#trials tbody tr")
        expect(ended.first).to_be_visible()
        assert all("finished" in row for row in ended.all_inner_texts())


def test_lost_connection_is_said_and_made_up_for(browser: Browser, server: PlayedServer) -> None:
    submit(server, "lost")
    with opened(browser, "/searches/lost", server) as page:
        played = driver(page, server, "lost")
        live(page)
        played.play(2)
        expect(page.locator("#events")).to_contain_text("reports")
        server.deafen()
        expect(page.locator("#live")).to_have_text("connection lost, trying again")
        played.play(5)
        server.listen()
        expect(page.locator("#live")).to_have_text("live", timeout=20_000)
        number = len(played.journal.entries)
        expect(page.locator(f'#events li[value="{number}"]')).to_have_count(1)
        values = [int(str(li.get_attribute("value"))) for li in page.locator("#events li").all()]
        assert values == sorted({*values}, reverse=True), "each event once, in order"
        assert values == [*range(values[0], values[-1] - 1, -1)], "none is missing"


def test_queue_is_moved_by_keyboard(browser: Browser, server: PlayedServer) -> None:
    for name in ("first", "second", "third", "fourth"):
        submit(server, name)
    with opened(browser, "/", server) as page:
        expect(page.locator("#queue li.waiting")).to_have_count(2)
        names = page.locator("#queue li.waiting h3")
        expect(names).to_have_text(["third", "fourth"])
        up = page.get_by_role("button", name="Move fourth up")
        up.focus()
        page.keyboard.press("Enter")
        expect(names).to_have_text(["fourth", "third"])
        expect(page.locator("#said")).to_contain_text("Fourth is moved up.")
        page.get_by_label("Priority of third").select_option("urgent")
        expect(names.first).to_have_text("third")
        page.get_by_role("button", name="Delete fourth").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("cannot be brought back")
        page.keyboard.press("Escape")
        expect(page.locator("li[data-row=fourth]")).to_have_count(1)
        page.get_by_role("button", name="Delete fourth").click()
        dialog.get_by_role("button", name="Delete it").click()
        expect(page.locator("li[data-row=fourth]")).to_have_count(0)


def test_form_and_text_say_the_same_and_become_a_search(
    browser: Browser, server: PlayedServer
) -> None:
    with opened(browser, "/new", server) as page:
        text, submit = page.locator("#text"), page.get_by_role("button", name="Submit")
        expect(page.get_by_text("lm is a valid space")).to_be_visible()
        expect(page.locator("#priors svg")).to_have_count(8)
        expect(page.locator("#cost")).to_contain_text("training tokens")
        text.fill("name: mine\nbudgett: {tokens: 9}\n")
        expect(page.locator("#mistakes")).to_have_text(
            "2:1 unknown key budgett; did you mean budget?"
        )
        expect(page.locator(".editor .wrong")).to_have_text("2")
        expect(submit).to_be_disabled()
        expect(page.locator("#cost")).to_be_hidden()
        page.get_by_role("button", name="2:1").click()
        assert text.evaluate("e => e.selectionStart") == len("name: mine\n")
        text.fill(f"# of mine\n{SHORT % 77}")
        expect(page.get_by_text("lm is a valid space")).to_be_visible()
        trials = page.locator('[name="search.trials"]')
        trials.fill("4")
        trials.press("Tab")
        expect(text).to_have_value(f"# of mine\n{SHORT % 77}".replace("trials: 3", "trials: 4"))
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
        page.get_by_role("link", name="Fork").click()
        expect(page.get_by_role("heading", name="Fork of mine")).to_be_visible()
        page.get_by_role("button", name="Submit the fork").click()
        expect(page.get_by_text("Mine is a search of the same space.")).to_be_visible()


def test_searches_are_compared(browser: Browser, server: PlayedServer, finished: str) -> None:
    server.drivers["first"].play(3)
    with opened(browser, "/compare", server) as page:
        for name in ("done", "none", "first"):
            page.get_by_label("Add a search").fill(name)
            page.keyboard.press("Enter")
        expect(page.get_by_text("There is no search none.")).to_be_visible()
        page.get_by_role("button", name="Leave out none").click()
        expect(page.get_by_role("heading", name="Nobody can say which is better")).to_be_visible()
        expect(page.get_by_role("region", name="Settings that differ")).to_contain_text(
            "search.seed"
        )
        expect(page.locator("path.line.kind-0").last).to_be_attached()
        assert page.url == f"{server.url}/compare?search=done&search=first"
        page.goto(f"{server.url}/machines")
        expect(page.locator("#says")).to_contain_text("of 2 devices of this machine")
        expect(page.locator("#load progress").first).to_be_visible()


def test_names_of_others_stay_texts(browser: Browser, server: PlayedServer, finished: str) -> None:
    server.database.add(
        QueuedSearch("odd", HOSTILE, problem=HOSTILE, wanted="", visibility="public")
    )
    with opened(browser, "/", server) as page:
        row = page.locator("#ended tr[data-row=odd]")
        expect(row.locator(".why")).to_have_text(visible(HOSTILE))
        expect(row.locator("bdi").last).to_have_text(visible(HOSTILE))
        assert page.locator("img").count() == 0
        texts = ["".join(map(chr, range(0x2100))), HOSTILE, "\ufeff𝛼 \U0001f600 \u2028"]
        script = """async (texts) => {
            const at = document.querySelector('script[type=module]').src;
            const { visible } = await import(at.replace(/[^/]+$/, 'elements.js'));
            return texts.map(visible);
        }"""
        assert page.evaluate(script, texts) == [visible(text) for text in texts]
    server.database.remove("odd")


COMPARED = "/compare?search=done&search=first"
PAGES = (
    "/", "/searches/done", "/searches/done/trials/0", "/searches/none", "/new", COMPARED,
    "/machines", "/users",
)  # fmt: skip
DRAWN = {"/new": "#rates svg", COMPARED: "svg.drawing"}  # what says that a page is complete


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_are_accessible(
    browser: Browser, server: PlayedServer, finished: str, theme: str
) -> None:
    with opened(browser, "/", server, color_scheme=theme) as page:
        for path in PAGES:
            page.goto(f"{server.url}{path}")
            if path == "/searches/done":
                page.locator("#pictures-title").scroll_into_view_if_needed()
                expect(page.locator("#pictures figure svg").last).to_be_attached(timeout=30_000)
                expect(page.locator("#trials tbody tr")).not_to_have_count(0)
            if path in DRAWN:
                page.locator(DRAWN[path]).first.wait_for()
            found = Axe().run(page).response["violations"]
            assert [(each["id"], each["nodes"][0]["target"]) for each in found] == [], path


def test_pages_fit_a_phone(browser: Browser, server: PlayedServer, finished: str) -> None:
    size = {"width": 360, "height": 780}
    with opened(browser, "/", server, viewport=size, is_mobile=True, has_touch=True) as page:
        for path in PAGES:
            page.goto(f"{server.url}{path}")
            page.wait_for_load_state("load")
            if path in DRAWN:
                page.locator(DRAWN[path]).first.wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") == 360, path


def test_first_admin_is_made_on_the_page(browser: Browser, server: PlayedServer) -> None:
    """From this test on, the server asks for tokens."""
    with opened(browser, "/users", server) as page:
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


def test_users_see_what_they_may(browser: Browser, server: PlayedServer) -> None:
    """From the first user on, the server asks for tokens."""
    alice = new_user(server.database, "alice", "user", team="nlp")
    bob = new_user(server.database, "bob", "user", team="nlp")
    submit_as = {"token": alice}
    page_of: dict[str, Page] = {}
    with (
        opened(browser, "/login", server) as page_of["alice"],
        opened(browser, "/searches/secret", server) as page_of["bob"],
    ):
        # users are asked for once a second
        page_of["bob"].wait_for_timeout(1100)
        submit(server, "secret", visibility="private", **submit_as)
        submit(server, "shared", visibility="team", **submit_as)
        page_of["bob"].goto(f"{server.url}/searches/shared")
        for name, token in (("alice", alice), ("bob", bob)):
            page_of[name].get_by_label("Token").fill(token)
            assert Axe().run(page_of[name]).response["violations"] == []
            page_of[name].get_by_role("button", name="Log in").click()
        own, other = page_of["alice"], page_of["bob"]
        expect(own.locator("li[data-row=secret]")).to_have_count(1)
        expect(own.get_by_role("button", name="Pause shared")).to_be_visible()
        expect(other).to_have_url(f"{server.url}/searches/shared")
        expect(other.locator("#state")).to_contain_text("by")
        assert other.get_by_role("button", name="Pause shared").count() == 0
        other.goto(f"{server.url}/searches/secret")
        expect(other.get_by_text("There is no search secret")).to_be_visible()
        other.goto(server.url)
        expect(other.locator("li[data-row=shared]")).to_have_count(1)
        assert other.locator("[data-row=secret]").count() == 0
        own.get_by_role("button", name="Pause shared").click()
        expect(own.locator("li[data-row=shared] .state")).to_have_text("pausing")
        assert not driver(own, server, "shared").play()
        expect(own.locator("li[data-row=shared] .state")).to_have_text("paused")
        expect(other.locator("li[data-row=shared] .state")).to_have_text("paused")
        own.get_by_role("button", name="Undo").click()
        expect(own.locator("li[data-row=shared] .state")).not_to_have_text("paused")
        other.get_by_role("button", name="Log out").click()
        expect(other.get_by_label("Token")).to_be_visible()
