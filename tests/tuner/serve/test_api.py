"""The API as scripts use it, in this process."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from tests.tuner.serve.conftest import SPACE, Place
from tests.tuner.simulated_search import SPACE as RECORDED
from tuner.errors import JournalError
from tuner.journal import journal
from tuner.journal.edit_request import EditRequests, request_edit
from tuner.journal.events import Reported, SearchBegun
from tuner.journal.journal import JOURNAL_FILE, Journal
from tuner.lease.stop_request import StopRequest
from tuner.serve import curves as curves_module
from tuner.serve import edits
from tuner.serve.access import new_user
from tuner.serve.api.downsampling import downsampled
from tuner.serve.api.uploads import keep_upload

SEARCHES = "/api/v1/searches"


def names(place: Place, **query: object) -> list[str]:
    answer = place.client.get(SEARCHES, params=query)  # type: ignore[arg-type]
    return [each["name"] for each in answer.json()["searches"]]


def test_health(place: Place) -> None:
    assert place.client.get("/healthz").json()["status"] == "ok"
    assert place.client.get("/readyz").status_code == 503, "the queue has not moved yet"


def test_submission_answers_what_scripts_rely_on(place: Place) -> None:
    for number in range(2):
        place.submit(number)
    place.dispatcher.tick()
    third = place.submit(2)
    place.dispatcher.tick()
    assert third["name"] == "lm-3"
    shown = place.client.get(f"{SEARCHES}/lm-3").json()
    assert {"name", "state", "position", "waits_for"} <= shown.keys()
    assert (shown["state"], shown["position"]) == ("waiting", 1)
    running = place.client.get(f"{SEARCHES}/lm-1").json()
    assert running["state"] == "running"
    assert running["best"] > 0
    assert running["tokens"] > 0
    assert running["trials_done"] >= 0
    assert running["metric"] == "val_loss"


def test_equal_space_is_answered_with_the_earlier_search(place: Place) -> None:
    place.submit(1, name="first")
    again = place.client.post(SEARCHES, content=SPACE % 1, params={"name": "second"})
    assert again.status_code == 409
    assert again.json()["name"] == "first"
    assert again.json()["state"] == "waiting"
    renamed = (SPACE % 1).replace("name: lm", "name: other")
    assert place.client.post(SEARCHES, content=renamed).json()["name"] == "first"
    taken = place.client.post(SEARCHES, content=SPACE % 2, params={"name": "first"})
    assert (taken.status_code, taken.json()["message"]) == (409, "there is a search first")


def test_idempotency_key_gives_the_first_answer_again(place: Place) -> None:
    headers = {"Idempotency-Key": "k1"}
    one = place.client.post(SEARCHES, content=SPACE % 1, headers=headers)
    two = place.client.post(SEARCHES, content=SPACE % 1, headers=headers)
    assert (one.status_code, two.status_code) == (201, 201)
    assert one.json()["name"] == two.json()["name"]
    assert names(place) == ["lm-1"]


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        (b"name: [", 1, 8, "not valid YAML"),
        (b"budgett: {tokens: 1}\n", 1, 1, "unknown key budgett; did you mean budget?"),
        (b"budget: {tokens: 9}\ndata: {files: /etc/passwd}\n", 2, 15, "is outside of what this"),
        (b"budget: {tokens: 9}\ndata: {files: uploads/../../x.txt}\n", 2, 15, "is outside of"),
        (b"budget: {tokens: 9}\ndata: {hub: a/b}\n", 2, 13, "this server reads no hub"),
        (b"budget: {tokens: 9}\nengine: {storage: s3://b/x}\n", 2, 19, "has no bucket"),
        (b"budget: {tokens: 9}\ninit_from: {search: x-1}\n", 2, 21, "there is no search x-1"),
        (b"budget: {tokens: 9}\ninit_from: {run: abcdefgh}\n", 2, 18, "name the search instead"),
        (b"budget: {tokens: 9}\ninit_from: {checkpoint: /x}\n", 2, 25, "is outside of what"),
        (b"budget: {tokens: 9}\ntokenizer: {file: ~/x}\n", 2, 19, "is outside of"),
        (b"a: !!python/object/apply:os.system [ls]\n", 1, 4, "the tag"),
        (b"\xff\xfe", 1, 1, "not UTF-8"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\n" + b"".join(
            b"c%d: &c%d [*%s, *%s]\n" % (i, i, p, p)
            for i, p in enumerate([b"b", *(b"c%d" % i for i in range(30))])
        ), 0, 0, "more than 10000 values"),
    ],
)  # fmt: skip
def test_mistakes_of_a_space_have_lines_and_columns(
    place: Place, text: bytes, line: int, column: int, message: str
) -> None:
    for path in (SEARCHES, "/api/v1/validate"):
        answer = place.client.post(path, content=text)
        assert answer.status_code == 422, answer.text
        mistakes = answer.json()
        found = [each for each in mistakes if message in each["message"]]
        assert found, mistakes
        if line:
            assert (found[0]["line"], found[0]["column"]) == (line, column)
    assert names(place) == []


def test_valid_space_is_explained(place: Place) -> None:
    answer = place.client.post("/api/v1/validate", content=SPACE % 1).json()
    assert (answer["name"], answer["expected_tokens"] > 0) == ("lm", True)


@pytest.mark.parametrize("name", ["a\x07b", "../x", ".hidden", "a b", "x" * 101, "$(x)"])
def test_names_that_are_none_are_refused(place: Place, name: str) -> None:
    answer = place.client.post(SEARCHES, content=SPACE % 1, params={"name": name})
    assert answer.status_code == 422
    assert answer.json()[0]["message"]
    assert place.client.get(f"{SEARCHES}/..%2f..%2fetc").status_code == 404
    assert place.client.get(f"{SEARCHES}/.hidden").status_code == 404


def test_large_bodies_are_refused(place: Place) -> None:
    assert place.client.post(SEARCHES, content=b"x" * 2_000_000).status_code == 413

    def chunks() -> object:
        for _ in range(20):
            yield b"x" * 100_000

    assert place.client.post(SEARCHES, content=chunks()).status_code == 413  # type: ignore[arg-type]


def test_lists_have_pages_and_filters(place: Place) -> None:
    for seed in range(5):
        place.submit(seed, name=f"s{seed}")
    place.dispatcher.tick()
    first = place.client.get(SEARCHES, params={"limit": 2}).json()
    second = place.client.get(SEARCHES, params={"limit": 9, "page": first["next"]}).json()
    both = [*first["searches"], *second["searches"]]
    assert sorted(each["name"] for each in both) == [f"s{seed}" for seed in range(5)]
    assert second["next"] is None
    assert sorted(names(place, state="running")) == ["s0", "s1"]
    queue = place.client.get("/api/v1/queue").json()
    assert [each["name"] for each in queue["waiting"]] == ["s2", "s3", "s4"]
    assert queue["devices"] == 2


def test_priority_and_place_change_the_order(place: Place) -> None:
    for seed in range(5):
        place.submit(seed, name=f"s{seed}")
    place.dispatcher.tick()
    place.client.post(f"{SEARCHES}/s4/priority", params={"before": "s2"})
    place.client.post(f"{SEARCHES}/s3/priority", params={"priority": "high"})
    place.dispatcher.tick()
    waiting = place.client.get("/api/v1/queue").json()["waiting"]
    assert [each["name"] for each in waiting] == ["s3", "s4", "s2"]
    assert place.client.post(f"{SEARCHES}/s3/priority").status_code == 400


def test_stream_resumes_where_a_client_left(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_PART_BYTES", 4000)
    place.submit(name="a")
    place.dispatcher.tick()
    place.drivers["a"].end("finished")
    place.dispatcher.tick()

    def read(after: int | None) -> tuple[int, list[tuple[int, dict[str, object]]]]:
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        answer = place.client.get(f"{SEARCHES}/a/events", headers=headers)
        found = []
        for block in answer.text.split("\n\n"):
            if block.startswith("id: "):
                number, data = block.split("\n")
                found.append((int(number[4:]), json.loads(data[6:])))
        return answer.status_code, found

    status, every = read(None)
    assert status == 200
    assert [number for number, _ in every] == [*range(1, len(every) + 1)]
    assert every[0][1]["event"] == "search"
    assert every[-1][1]["event"] == "end"
    assert read(3) == (200, every[3:])
    assert read(len(every)) == (204, []), "a browser does not ask again"
    assert place.client.get(f"{SEARCHES}/a/curves").status_code == 200  # its journal is read
    assert place.searches.place_before("a", len(every) - 1)[0] > 3, "most lines are left out"
    for number in range(1, len(every)):
        assert read(number) == (200, every[number:])


def test_curves_are_downsampled_and_keep_their_shape(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.submit(name="a")
    place.dispatcher.tick()
    curves = place.client.get(f"{SEARCHES}/a/curves").json()
    assert curves["metric"] == "val_loss"
    assert curves["curves"][0]["trial"] == 0
    assert len(curves["curves"][0]["tokens"]) == len(curves["curves"][0]["values"]) > 0
    for points in range(3, 12):  # whatever is asked, few answers are kept
        assert place.client.get(f"{SEARCHES}/a/curves?points={points}").status_code == 200
    assert max(map(len, curves_module._KEPT.values())) == curves_module._MOST_KEPT
    # many curves have few points each, and one that has grown is made again
    monkeypatch.setattr(curves_module, "_MOST_POINTS", 1)
    driver = place.drivers["a"].journal
    assert driver is not None
    entries = [each.event for each in driver.entries if isinstance(each.event, Reported)]
    for report in entries[0].report, *(replace(entries[0].report, step=n) for n in range(90, 96)):
        driver.append(Reported(0, replace(report, tokens=512 * report.step)))
    again = place.client.get(f"{SEARCHES}/a/curves").json()["curves"]
    assert len(again[0]["tokens"]) == 3
    assert again[0]["tokens"][-1] == 512 * 95
    assert again[1:] == curves["curves"][1:]
    points = [(i, 0.0) for i in range(1000)]
    points[500] = (500, 9.0)
    points[77] = (77, float("nan"))
    kept = downsampled(points, 50)
    assert len(kept) == 50
    assert (500, 9.0) in kept
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert downsampled(points[:40], 50) == points[:40]


def test_files_are_downloaded_by_name_only(place: Place) -> None:
    place.submit(name="a")
    place.dispatcher.tick()
    files = {each["name"] for each in place.client.get(f"{SEARCHES}/a/files").json()["files"]}
    assert files == {"space.yaml", JOURNAL_FILE}
    assert place.client.get(f"{SEARCHES}/a/files/space.yaml").text == SPACE % 0
    journal = (place.home.search("a") / JOURNAL_FILE).read_bytes()
    assert place.client.get(f"{SEARCHES}/a/files/{JOURNAL_FILE}").content == journal
    for name in ("lock", "..%2f..%2fserve%2fqueue.db", "epochs", "%2fetc%2fpasswd"):
        assert place.client.get(f"{SEARCHES}/a/files/{name}").status_code == 404


def test_link_in_place_of_a_journal_is_not_followed(place: Place) -> None:
    place.submit(name="a")
    folder = place.home.search("a")
    folder.mkdir(parents=True)
    (folder / JOURNAL_FILE).symlink_to("/etc/passwd")
    assert place.client.get(f"{SEARCHES}/a/files/{JOURNAL_FILE}").status_code == 404
    with pytest.raises(JournalError, match="link"):
        Journal.open(folder)


def test_delete_removes_what_has_not_begun(place: Place) -> None:
    place.submit(0, name="a")
    place.dispatcher.tick()
    place.submit(1, name="b")
    assert place.client.delete(f"{SEARCHES}/a").status_code == 409
    assert place.client.delete(f"{SEARCHES}/b").status_code == 204
    assert names(place) == ["a"]
    assert place.client.get(f"{SEARCHES}/b").status_code == 404


def test_edited_search_goes_on_with_its_devices(place: Place) -> None:
    place.submit(0, name="a")
    place.submit(1, name="b")
    place.dispatcher.tick()
    place.submit(2, name="c", priority="high")
    recorded = next(event for event in place.events if event.event == "search").space_text
    assert recorded == ""
    more = place.client.post(f"{SEARCHES}/a/edit", content="name: other\nbudget: {tokens: 9}\n")
    assert more.status_code == 409
    assert "cannot be resumed with another" in more.json()["message"]
    assert place.client.post(f"{SEARCHES}/a/edit", content="x: 1").status_code == 422
    place.client.post(f"{SEARCHES}/a/pause")
    place.client.post(f"{SEARCHES}/a/resume")
    # the events are those of another space, so the edit is written as the route would
    place.database.change("a", space_text=SPACE % 7, asked="edit")
    place.dispatcher.tick()
    assert place.state("a") == "running"
    place.drivers["a"].end("interrupted")
    place.dispatcher.tick()
    assert place.starts[-1] == "a", "before c, which waits for devices"
    assert "seed: 7" in (place.home.root / "serve" / "a.yaml").read_text()
    assert place.client.get(f"{SEARCHES}/c").json()["state"] == "waiting"


def test_edit_is_taken_by_the_driver_that_runs_or_the_next_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is stopped; what the queue and local commands have told the search stays told."""
    monkeypatch.setattr(edits, "_PATIENCE_SECONDS", 0.0)
    text = "name: space\n" + RECORDED % "trials: 3, sampler: random, scheduler: asha"
    space = next(event for event in place.events if isinstance(event, SearchBegun)).space

    def edit(trials: int, **more: str) -> Any:
        changed = text.replace("trials: 3", f"trials: {trials}") + more.get("engine", "")
        return place.client.post(f"{SEARCHES}/a/edit", content=changed)

    def waiting() -> list[int]:
        trials = []
        for event in EditRequests(place.home.search("a"), print).take(space, is_live=False):
            trials.append(event.space.search.trials)
            request_edit(place.home.search("a"), event.space, event.space_text)
        return trials

    assert place.client.post(SEARCHES, content=text, params={"name": "a"}).status_code == 201
    place.dispatcher.tick()
    assert place.drivers["a"].arguments[:3] == ["--name", "a", "--space"]
    assert edit(9).json()["state"] == "running"
    place.dispatcher.tick()
    assert (place.state("a"), waiting()) == ("running", [9])
    journal = place.drivers["a"].journal
    assert journal is not None
    for event in EditRequests(journal.path.parent, print).take(space, is_live=True):
        journal.append(event)
    refused = edit(3)
    assert refused.status_code == 409
    assert "fewer search.trials (3 instead of 9)" in refused.json()["message"]
    assert place.client.get(f"{SEARCHES}/a/files/space.yaml").text == text.replace(
        "trials: 3", "trials: 9"
    )

    place.client.post(f"{SEARCHES}/a/pause")
    place.dispatcher.tick()
    place.drivers["a"].end("interrupted")
    place.dispatcher.tick()
    assert edit(90).json()["state"] == "paused"
    assert edit(10).json()["state"] == "paused"
    assert waiting() == [10], "the later edit replaces the one that nobody has taken"
    place.client.post(f"{SEARCHES}/a/resume")
    place.dispatcher.tick()
    assert place.drivers["a"].arguments[:2] == ["--resume", "a"]
    assert waiting() == []
    assert edit(10, engine="engine: {timeout_seconds: 90}\n").status_code == 200
    place.dispatcher.tick()
    assert place.drivers["a"].journal.stop_request() is StopRequest.SOON, "it needs other workers"
    place.drivers["a"].end("interrupted")
    place.dispatcher.tick()
    assert place.state("a") == "running"

    assert edit(11).status_code == 200
    place.drivers["a"].end("finished")
    place.dispatcher.tick()
    assert place.state("a") == "running", "the edit that came too late is not lost"
    place.drivers["a"].end("finished")
    place.dispatcher.tick()
    assert place.state("a") == "finished"


def test_upload_is_kept_by_its_contents_and_named_in_a_space(place: Place) -> None:
    texts = b"some text, " * 5000
    sent = [place.client.post("/api/v1/uploads", content=texts) for _ in range(2)]
    assert [answer.status_code for answer in sent] == [201, 201]
    path = sent[0].json()["path"]
    assert path == f"uploads/{hashlib.sha256(texts).hexdigest()}.txt" == sent[1].json()["path"]
    kept = [each.name for each in (place.home.root / "serve" / "uploads").iterdir()]
    assert [f"uploads/{name}" for name in kept] == [path]
    space = f"data: {{files: {path}}}\n{SPACE % 3}"
    assert place.client.post("/api/v1/validate", content=space).status_code == 200
    bad = place.client.post("/api/v1/uploads", content=b"x", params={"suffix": "/../../x"})
    assert bad.status_code == 422


def test_client_that_goes_away_during_an_upload_leaves_nothing(tmp_path: Path) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"half of"
        raise ClientDisconnect

    with pytest.raises(ClientDisconnect):
        asyncio.run(keep_upload(parts(), tmp_path, ".txt"))
    assert list(tmp_path.iterdir()) == []


# users --------------------------------------------------------------------------------------------


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_users_see_and_change_what_they_may(place: Place) -> None:
    place.kill()
    place.open()
    tokens = {
        name: bearer(new_user(place.database, name, role, team))
        for name, role, team in (
            ("ann", "user", "x"), ("bob", "user", "x"), ("eve", "user", "y"),
            ("vic", "viewer", "x"), ("root", "admin", ""),
        )
    }  # fmt: skip
    assert place.client.get(SEARCHES).status_code == 401
    for seed, seen in enumerate(("private", "team", "public")):
        answer = place.client.post(
            SEARCHES, content=SPACE % seed, params={"name": seen, "visibility": seen},
            headers=tokens["ann"],
        )  # fmt: skip
        assert answer.status_code == 201, answer.text
    seen_by = {
        user: {e["name"] for e in place.client.get(SEARCHES, headers=h).json()["searches"]}
        for user, h in tokens.items()
    }
    everything = {"private", "team", "public"}
    assert seen_by["ann"] == seen_by["root"] == everything
    assert seen_by["bob"] == seen_by["vic"] == {"team", "public"}
    assert seen_by["eve"] == {"public"}
    pause = {
        user: place.client.post(f"{SEARCHES}/private/pause", headers=h).status_code
        for user, h in tokens.items()
    }
    assert pause == {"ann": 200, "bob": 404, "eve": 404, "vic": 404, "root": 200}
    assert place.client.post(f"{SEARCHES}/team/stop", headers=tokens["bob"]).status_code == 403
    denied = place.client.post(SEARCHES, content=SPACE % 8, headers=tokens["vic"])
    assert denied.status_code == 403
    hidden = place.client.post(SEARCHES, content=SPACE % 0, headers=tokens["eve"])
    assert hidden.status_code == 201, "a search that she may not see does not count"
    taken = place.client.post(
        SEARCHES, content=SPACE % 9, params={"name": "private"}, headers=tokens["eve"]
    )
    assert taken.json() == {"message": "there is a search private"}
    assert place.client.get("/api/v1/audit", headers=tokens["ann"]).status_code == 403
    lines = place.client.get("/api/v1/audit", headers=tokens["root"]).json()
    assert {"user": "ann", "action": "submit", "search": "team"}.items() <= next(
        line for line in lines if line["search"] == "team"
    ).items()


def test_ten_thousand_bad_tokens_are_cheap_and_good_ones_work(place: Place) -> None:
    token = new_user(place.database, "ann", "user")
    bad = bearer(token[:-1] + "x")
    statuses = [place.client.get(SEARCHES, headers=bad).status_code for _ in range(30)]
    assert statuses == [401] * 20 + [429] * 10
    reads = place.access._read
    for _ in range(10_000):
        with pytest.raises(Exception, match="too many bad tokens"):
            place.access.identify(bad["Authorization"], "testclient")
    assert place.access._read - reads < 5, "no database is asked for a bad token"
    assert place.client.get(SEARCHES, headers=bearer(token)).status_code == 200


def test_no_token_is_stored_logged_or_shown(place: Place) -> None:
    token = new_user(place.database, "ann", "admin")
    place.client.get(SEARCHES, headers=bearer(token), params={"token": token})
    secret = token.rpartition("_")[2]
    place.database.close()
    for path in (place.home.root / "serve").glob("queue.db*"):
        assert secret.encode() not in path.read_bytes()
    assert secret not in "".join(place.log)
    line = json.loads(place.log[-1])
    assert (line["user"], line["path"], line["status"]) == ("ann", SEARCHES, 200)


def test_pages_of_others_may_not_call(place: Place) -> None:
    answer = place.client.post(f"{SEARCHES}/a/stop", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
