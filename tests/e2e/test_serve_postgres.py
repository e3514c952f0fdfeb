"""Queue and users in a real Postgres."""

from __future__ import annotations

import threading

import pytest

from tests.e2e.postgres import postgres
from tuner.errors import TunerError
from tuner.serve.access import new_user
from tuner.serve.database import Database
from tuner.serve.records import QueuedSearch, Use

pytestmark = pytest.mark.slow


def test_postgres_holds_what_sqlite_holds() -> None:
    with postgres() as url:
        one, two = Database(url), Database(url)  # of two servers
        try:
            _check(one, two)
        finally:
            one.close()
            two.close()
    with pytest.raises(TunerError, match="cannot be used"):
        Database(url)


def _check(one: Database, two: Database) -> None:
    search = QueuedSearch("a", "ann", "hash", "α: 1", place=0.5, idempotency_key="k")
    assert one.add(search)
    assert two.search("a") == search
    assert not two.add(QueuedSearch("a", "bob"))
    assert not two.add(QueuedSearch("b", "ann", idempotency_key="k"))
    assert two.of_key("ann", "k") == search
    added: list[bool] = []
    threads = [
        threading.Thread(target=lambda each=each: added.append(each.add(QueuedSearch("c", "x"))))
        for each in (one, two) * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(added) == [False] * 7 + [True], "one of them, whoever comes first"
    assert two.change("a", devices="0,1", wanted="pause")
    assert {each.name: each.device_numbers for each in one.active()} == {"a": (0, 1), "c": ()}
    token = new_user(one, "ann", "admin", most_tokens=2**40)
    (user,) = two.users()
    assert (user.name, user.most_tokens) == ("ann", 2**40)
    assert token not in user.token_hash
    two.put_use([Use("ann", 1.5, 2.0, "2026-11-25", 2**40)])
    assert one.use()["ann"].tokens == 2**40
    assert [line.action for line in one.audit(5)] == ["add user"]
    one.remove("a")
    assert [each.name for each in two.searches()] == ["c"]
