"""Pages without a browser: who may look, what is escaped, what the server sends with them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from importlib.resources import files

import pytest

from tests.tuner.serve.conftest import Place
from tuner.journal.fold import Search
from tuner.journal.journal import read_journal
from tuner.report.contents import headline
from tuner.report.series import ReportData
from tuner.results.result import SearchResult
from tuner.serve.access import new_user
from tuner.serve.api.requests import LOGIN_COOKIE
from tuner.serve.pages.files import PageFiles
from tuner.serve.pages.overview import Overview, changes
from tuner.serve.records import QueuedSearch, User
from tuner.serve.views import SearchView

PERSON = {"accept": "text/html,*/*"}
SEARCHES = "/api/v1/searches"
ROOM = files("tuner.serve.pages")


def pledge(text: str) -> str:
    found = re.search(r'<meta name="pledge" content="(\w*)">', text)
    assert found
    return found[1]


def test_page_has_scripts_and_styles_of_this_server_only(place: Place) -> None:
    answer = place.client.get("/", headers=PERSON)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    for template in (ROOM / "templates").iterdir():
        text = re.sub(r"{#.*?#}", "", template.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.search(r"\son\w+=|\sstyle=|<style|https?://|\|\s*safe", text), template.name
        for attributes in re.findall(r"<script ?([^>]*)>", text):
            assert re.match(r'type="application/json"|(defer |type="module" )?src=', attributes)
    for script in (ROOM / "static").iterdir():
        text = script.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), script.name
    paths = re.findall(r'(?:href|src)="(/static/[^"]+)"', answer.text)
    assert len(paths) >= 4
    for path in paths:
        sent = place.client.get(path)
        assert sent.status_code == 200
        assert "immutable" in sent.headers["cache-control"]
        assert sent.headers["content-encoding"] == "gzip"
    old = place.client.get(f"/static/0/{paths[0].rpartition('/')[2]}")
    assert (old.status_code, old.headers["cache-control"]) == (200, "no-store")
    assert place.client.get("/static/0/..%2f__init__.py").status_code == 404


def test_vendored_files_are_those_that_are_listed() -> None:
    folder = ROOM / "vendored"
    listed = json.loads((folder / "vendored.json").read_text(encoding="utf-8"))
    digests = {
        name: each for package in listed.values() for name, each in package["sha256"].items()
    }
    lying = {each.name: each for each in folder.iterdir() if each.name != "vendored.json"}
    assert digests == {
        name: hashlib.sha256(each.read_bytes()).hexdigest() for name, each in lying.items()
    }
    for package, facts in listed.items():
        assert facts["version"]
        assert facts["licence"] in lying[f"{package}.LICENSE"].read_text(encoding="utf-8")


def test_scripts_are_small() -> None:
    read = PageFiles.read()
    scripts = {name: len(data) for name, data in read.contents.items() if name.endswith(".js")}
    assert sum(scripts.values()) < 300_000, scripts


def test_browser_logs_in_and_out(place: Place) -> None:
    token = new_user(place.database, "alice", "user")
    client = place.client
    asked = client.get("/?x=1", headers=PERSON, follow_redirects=False)
    assert asked.status_code == 303
    assert asked.headers["location"] == "/login?next=%2F%3Fx%3D1"
    assert client.get("/api/v1/searches").status_code == 401, "programs get no page"
    wrong = client.post("/login", data={"token": "tuner_1_x", "next": "/"})
    assert (wrong.status_code, "The token is not valid" in wrong.text) == (401, True)
    entered = client.post(
        "/login", data={"token": token, "next": "//evil.example"}, follow_redirects=False
    )
    assert entered.headers["location"] == "/"
    cookie = entered.headers["set-cookie"]
    assert cookie.startswith(f"{LOGIN_COOKIE}=")
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= {*cookie.split("; ")}
    page = client.get("/", headers=PERSON).text
    assert "alice" in page
    assert token not in page
    key = pledge(page)
    path = "/api/v1/searches/none/pause"
    for header in (
        {},
        {"X-CSRF-Token": "0" * 64},
        {b"x-csrf-token": "é".encode()},
    ):
        assert client.post(path, headers=header).status_code == 403
    assert client.post(path, headers={"X-CSRF-Token": key}).status_code == 404
    assert client.post("/logout", data={"pledge": "0"}).status_code == 403
    secret = client.cookies[LOGIN_COOKIE]
    out = client.post("/logout", data={"pledge": key}, follow_redirects=False)
    assert (out.status_code, out.headers["location"]) == (303, "/login")
    client.cookies.set(LOGIN_COOKIE, secret)
    assert client.get("/api/v1/searches").status_code == 401, "the cookie is worth nothing now"


def test_login_ends_with_the_token(place: Place) -> None:
    token = new_user(place.database, "alice", "user")
    place.access._read = -1e9
    place.client.post("/login", data={"token": token, "next": "/"})
    assert place.client.get("/api/v1/searches").status_code == 200
    new_user(place.database, "alice", "user")
    place.access._read = -1e9
    assert place.client.get("/api/v1/searches").status_code == 401


def test_many_bad_tokens_are_refused_like_elsewhere(place: Place) -> None:
    new_user(place.database, "alice", "user")
    codes = [place.client.post("/login", data={"token": "x"}).status_code for _ in range(21)]
    assert {*codes[:20], codes[20]} == {401, 429}


def test_person_gets_a_page_where_something_is_wrong(place: Place) -> None:
    answer = place.client.get("/searches/<b>\u202e", headers=PERSON)
    assert answer.status_code == 404
    assert "There is no such page" in answer.text
    assert "<b>" not in answer.text
    assert "\u202e" not in answer.text
    assert place.client.get("/nowhere").json() == {"message": "Not Found"}
    assert (
        place.client.get("/nowhere", headers=PERSON).headers["content-type"].startswith("text/html")
    )


@pytest.mark.parametrize("name", ["x</script><script>alert(1)</script>", "a\u202eb", "<img src=x>"])
def test_data_of_a_page_stays_data(place: Place, name: str) -> None:
    place.database.add(QueuedSearch("fine", name, problem=name))
    text = place.client.get("/", headers=PERSON).text
    assert name not in text
    data = re.search(r'id="data">(.*)</script>', text)
    assert data
    assert json.loads(data[1])["searches"][0]["problem"] == name


# what pages ask for -------------------------------------------------------------------------------


def test_changes_are_all_searches_first_and_then_what_changed() -> None:
    now = [SearchView(name="a", state="waiting"), SearchView(name="b", state="running")]
    told: list[tuple[list[str], list[str], bool]] = []

    async def sleep(seconds: float) -> None:
        if len(told) == 1:
            now[1] = now[1].model_copy(update={"tokens": 7})
        elif len(told) == 2:
            del now[0]

    async def listen() -> None:
        async for text in changes(lambda: list(now), sleep):
            if text.startswith("event: searches\ndata: "):
                sent = json.loads(text.partition("data: ")[2])
                names = [each["name"] for each in sent["searches"]]
                told.append((names, sent["gone"], sent["is_all"]))

    asyncio.run(listen())  # it ends by itself, so that its client says again who it is
    assert told == [(["a", "b"], [], True), (["b"], [], False), ([], ["a"], False)]


def test_overview_shows_each_user_what_they_may_see(place: Place) -> None:
    for name, visibility in (("own", "private"), ("all", "public")):
        place.submit(len(name) + len(visibility), name=name, visibility=visibility)
    overview = Overview(place.service)
    owner = place.database.search("own")
    assert owner is not None
    seen = {
        user.name: [view.name for view in overview.views(user)]
        for user in (User(owner.owner, "user"), User("eve", "user"), User("root", "admin"))
    }
    assert seen.pop("eve") == ["all"]
    assert all(sorted(names) == ["all", "own"] for names in seen.values())


def test_answer_of_a_search_is_that_of_its_report(place: Place) -> None:
    place.submit(name="a")
    before = place.client.get(f"{SEARCHES}/a/summary").json()
    assert (before["headline"], before["best"]) == ("The search has not begun", None)
    assert place.client.get(f"{SEARCHES}/a/pictures").json()["sections"] == {}
    place.dispatcher.tick()
    summary = place.client.get(f"{SEARCHES}/a/summary").json()
    events = read_journal(place.home.search("a"))
    search = Search.of(events)
    assert search is not None
    result = SearchResult.of("a", search, run_id="", experiment_id="", run_ids={})
    assert result is not None
    assert summary["headline"] == headline(ReportData(result))
    assert (summary["best"], summary["num_events"]) == (result.best.number, len(events))
    table = place.client.get(f"{SEARCHES}/a/trials").json()
    assert [row["number"] for row in table["rows"]] == [trial.number for trial in result.trials]
    assert {len(row["texts"]) for row in table["rows"]} == {len(table["heads"])}
    assert "in training" in [row["texts"][table["heads"].index("outcome")] for row in table["rows"]]
    later = place.client.get(f"{SEARCHES}/a/trials", params={"since": table["newest"] + 1}).json()
    assert later["rows"] == []
    trial = place.client.get(f"{SEARCHES}/a/trials/0").json()
    assert [report["tokens"] for report in trial["reports"]] == [
        report.tokens for report in result.trials[0].reports
    ]
    assert {"α_max", "B"} <= {row["symbol"] for row in trial["searched"]}
    assert place.client.get(f"{SEARCHES}/a/trials/99").status_code == 404
    curves = place.client.get(f"{SEARCHES}/a/curves").json()
    assert (curves["num_events"], curves["curves"][0]["ending"]) == (len(events), "")


def test_pages_of_a_search_and_a_trial_have_its_name(place: Place) -> None:
    place.submit(name="a")
    place.dispatcher.tick()
    for path in ("/searches/a", "/searches/a/trials/0"):
        text = place.client.get(path, headers=PERSON).text
        assert "<bdi>a</bdi>" in text
        data = re.search(r'id="data">(.*)</script>', text)
        assert data
        assert json.loads(data[1])["search"]["name"] == "a"
    assert place.client.get("/searches/a/trials/99", headers=PERSON).status_code == 404
