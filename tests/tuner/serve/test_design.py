"""What who designs a search, compares some, or manages users asks the server for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tuner.serve.conftest import SPACE, Place
from tests.tuner.serve.test_api import SEARCHES, bearer
from tuner.journal.events import SearchBegun
from tuner.serve.access import new_user

API = "/api/v1"


def test_schema_has_symbols_units_defaults_and_ranges(place: Place) -> None:
    schema = place.client.get(f"{API}/schema").json()
    rows = {row["symbol"]: row for row in schema["hyperparameters"]}
    assert (
        rows["α_max"] | {"name": "max_learning_rate", "high": 100.0, "is_low_open": True}
        == (rows["α_max"])
    )
    assert rows["α_min"]["default_text"] == "0.1·α_max"
    assert (rows["T_warmup"]["unit"], rows["B"]["type"]) == ("updates", "integer")
    assert "adamw" in rows["optimizer"]["choices"]
    settings = {
        (section["name"], each["name"]): each
        for section in schema["sections"] for each in section["settings"]
    }  # fmt: skip
    trials = settings["search", "trials"]
    assert (trials["default"], trials["low"], trials["high"]) == (24, 1, 1_000_000)
    assert trials["meaning"].startswith("number of configurations")
    assert settings["search", "sampler"]["choices"][0] == "tpe"
    assert settings["budget", "tokens"]["unit"] == "tokens"


def test_presets_can_be_submitted_as_they_are(place: Place) -> None:
    presets = {each["name"]: each for each in place.client.get(f"{API}/presets").json()}
    assert presets["lm"]["about"].startswith("The default study: a small language model")
    answer = place.client.post(f"{API}/validate", content=presets["lm"]["text"].encode())
    assert answer.status_code == 200, answer.text


def test_validation_says_what_a_search_costs_and_draws_it(place: Place) -> None:
    found = place.client.post(f"{API}/validate", content=SPACE % 1).json()
    cost = found["cost"]
    assert (cost["trials"], cost["trial_tokens"], cost["devices"]) == (3, 27_000, 1)
    assert 27_000 <= cost["expected_tokens"] <= cost["full_tokens"] == 27_000 * (3 + 3 * 3)
    assert cost["peak_bytes"] > 16 * found["stacks"][0]["parameters"]
    assert (cost["position"], cost["waits_for"]) == (None, "devices are free for it")
    (rate,) = found["parameters"]
    assert (rate["symbol"], rate["is_log"]) == ("α_max", True)
    assert (rate["xs"][0], rate["xs"][-1]) == pytest.approx((1e-4, 1e-1))
    assert set(rate["density"]) == {1.0}
    labels = [curve["label"] for curve in found["schedules"][0]["curves"]]
    assert labels == ["defaults", "α_max = 0.0001", "α_max = 0.1"]
    for seed in range(3):
        place.submit(seed + 10, name=f"s{seed}")
    place.dispatcher.tick()
    later = place.client.post(f"{API}/validate", content=SPACE % 1).json()["cost"]
    assert later["position"] == 2
    assert later["waits_for"] == "its turn comes after s2"
    urgent = place.client.post(
        f"{API}/validate", content=SPACE % 1, params={"priority": "urgent"}
    ).json()["cost"]
    assert urgent["position"] == 1


def test_values_of_a_text_are_changed_in_place(place: Place) -> None:
    wish = {
        "text": "# mine\nbudget: {tokens: 5}  # few\n",
        "changes": [{"path": ["budget", "tokens"], "value": "1_000"}],
    }
    answer = place.client.post(f"{API}/draft", json=wish)
    assert answer.json() == {
        "text": "# mine\nbudget: {tokens: 1_000}  # few\n", "data": {"budget": {"tokens": 1000}}
    }  # fmt: skip
    wrong = place.client.post(f"{API}/draft", json={"text": "a: [", "changes": []})
    assert (wrong.status_code, wrong.json()[0]["line"]) == (422, 1)


def test_fork_is_the_space_changed(place: Place) -> None:
    place.submit(0, name="a")
    same = place.client.post(f"{SEARCHES}/a/fork")
    assert (same.status_code, same.json()["name"]) == (409, "a")
    query: dict[str, Any] = {"new_name": "b", "set": ["search.seed=5", "search.trials=9"]}
    fork = place.client.post(f"{SEARCHES}/a/fork", params=query)
    assert (fork.status_code, fork.json()["name"]) == (201, "b"), fork.text
    text = place.client.get(f"{SEARCHES}/b/files/space.yaml").text
    assert text == (SPACE % 5).replace("trials: 3", "trials: 9")
    sent = place.client.post(f"{SEARCHES}/a/fork", content=SPACE % 8, params={"new_name": "c"})
    assert sent.status_code == 201
    for query, status in (({"set": ["seed"]}, 400), ({"set": ["search.seedd=1"]}, 422)):
        assert place.client.post(f"{SEARCHES}/a/fork", params=query).status_code == status
    assert place.client.post(f"{SEARCHES}/none/fork").status_code == 404
    lines = place.client.get(f"{API}/audit").json()
    assert {"action": "fork", "search": "b", "detail": "of a"}.items() <= next(
        line for line in lines if line["action"] == "fork" and line["search"] == "b"
    ).items()


def test_searches_are_compared_by_their_journals(place: Place) -> None:
    place.submit(0, name="a")
    place.submit(1, name="b")
    place.dispatcher.tick()
    begun = place.events[0]
    assert isinstance(begun, SearchBegun)
    answer = place.client.get(f"{API}/compare", params={"search": ["a", "b"]})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["metric"], found["mode"], found["differences"]) == ("val_loss", "min", {})
    assert found["verdict"].startswith("Nobody can say which is better: the winner of a was not")
    assert [each["name"] for each in found["searches"]] == ["a", "b"]
    assert found["searches"][0]["best"] == place.client.get(f"{SEARCHES}/a").json()["best"]
    curve = found["searches"][0]
    assert len(curve["curve_tokens"]) == len(curve["curve_values"])
    for names, status in ((["a"], 400), (["a", "none"], 404), ([], 422)):
        params = {"search": names}
        assert place.client.get(f"{API}/compare", params=params).status_code == status


def test_machine_shows_devices_and_who_has_them(place: Place) -> None:
    place.submit(0, name="a")
    place.dispatcher.tick()
    found = place.client.get(f"{API}/machines").json()
    assert [(d["name"], d["search"], d["is_free"]) for d in found["devices"]] == [
        ("core 0", "a", False), ("core 1", None, True),
    ]  # fmt: skip
    assert (found["waiting"], found["outside"]) == (0, [])
    load = found["load"]
    assert 0 < load["memory"] < load["all_memory"]
    assert len(load["cores"]) >= 1
    place.database.change("a", owner="ann", visibility="private")
    token = bearer(new_user(place.database, "eve", "user", "y"))
    place.client.app.state.access._read = -10.0  # type: ignore[attr-defined]
    hidden = place.client.get(f"{API}/machines", headers=token).json()["devices"][0]
    assert (hidden["search"], hidden["owner"], hidden["is_free"]) == (None, None, False)


def test_answer_that_a_client_has_is_not_sent_again(place: Place) -> None:
    place.submit(0, name="a")
    first = place.client.get(SEARCHES)
    assert first.headers["cache-control"] == "private, no-cache"
    headers = {"If-None-Match": first.headers["etag"]}
    again = place.client.get(SEARCHES, headers=headers)
    assert (again.status_code, again.content) == (304, b"")
    place.submit(1, name="b")
    assert place.client.get(SEARCHES, headers=headers).status_code == 200


# users --------------------------------------------------------------------------------------------


def test_admin_adds_changes_disables_and_removes_users(place: Place) -> None:
    def call(method: str, path: str, token: str = "", **body: object) -> tuple[int, Any]:
        answer = place.client.request(
            method, f"{API}{path}", json=body or None,
            headers=bearer(token) if token else {},
        )  # fmt: skip
        return answer.status_code, answer.json() if answer.content else None

    assert call("POST", "/users", name="ann")[0] == 409, "nobody could add others"
    status, added = call("POST", "/users", name="root", role="admin")
    assert status == 201
    root = added["token"]
    assert call("GET", "/users")[0] == 401, "from now on all need a token"
    status, added = call("POST", "/users", root, name="ann", team="nlp", most_tokens=1000)
    assert (status, added["user"]["most_tokens"]) == (201, 1000)
    ann = added["token"]
    assert call("GET", "/me", ann) == (200, {"name": "ann", "role": "user", "team": "nlp"})
    for method, path in (("GET", "/users"), ("POST", "/users/root/disable")):
        assert call(method, path, ann)[0] == 403
    assert call("POST", "/users", root, name="ann")[0] == 409
    assert call("POST", "/users", root, name="../x")[0] == 404
    status, changed = call("PATCH", "/users/ann", root, most_tokens=None, weight=2)
    assert (changed["most_tokens"], changed["weight"]) == (None, 2.0)
    assert changed["team"] == "nlp", "what is left out stays"
    for method, path, body in (
        ("POST", "/users/root/disable", {}), ("DELETE", "/users/root", {}),
        ("PATCH", "/users/root", {"role": "user"}),
    ):  # fmt: skip
        status, said = call(method, path, root, **body)
        assert (status, "last admin" in str(said)) == (409, True)
    assert call("POST", "/users/ann/disable", root)[0] == 200
    assert call("GET", "/me", ann)[0] == 401
    users = call("GET", "/users", root)[1]
    assert [(u["name"], u["is_disabled"]) for u in users] == [("ann", True), ("root", False)]
    status, given = call("POST", "/users/ann/token", root)
    assert call("GET", "/me", given["token"])[0] == 200
    assert call("DELETE", "/users/ann", root)[0] == 204
    assert call("GET", "/me", given["token"])[0] == 401
    assert call("DELETE", "/users/ann", root)[0] == 404
    actions = [line["action"] for line in call("GET", "/audit", root)[1]]
    assert actions[:3] == ["remove user", "new token", "disable user"]
