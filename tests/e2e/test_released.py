"""What released versions left is read by this one: the promise of CONTRIBUTING, by their files."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.e2e.conftest import Workplace
from tests.released.searches import KILLED, SEARCHES, SERVED, reports_of
from tests.tuner.serve.conftest import Place
from tuner.home.home import Home

pytestmark = pytest.mark.slow

HOMES = sorted((Path(__file__).parents[1] / "released").glob("*.tar.xz"))
assert HOMES


@pytest.fixture(scope="module", params=HOMES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("released")
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    return Workplace(folder / "place")


def test_searches_of_a_release_replay(place: Workplace) -> None:
    """Each best trial to the last bit; on another kind of machine within the tolerance."""
    names = [name for name, _, _ in SEARCHES] + [SERVED]
    listed = place.tuner("list", "--json")
    assert {*names, KILLED[0]} == {search["name"] for search in listed.json["searches"]}
    for name in names:
        run = place.tuner("replay", "--search", name, "--json")
        answer = run.json
        assert run.status == 0, (name, run.err)
        assert answer["verdict"] == "bit-exact" or answer["changed"], (name, run.err)


def test_server_knows_the_searches_of_a_release(place: Workplace) -> None:
    serving = Place(Home.of(place.home), ())
    try:
        entry = serving.database.search(SERVED)
        assert entry is not None
        assert entry.space_text.startswith("name: small")
        assert serving.state(SERVED) == "finished"
        assert serving.state(KILLED[0]) == "interrupted"
    finally:
        serving.kill()


def test_search_of_a_release_resumes(place: Workplace) -> None:
    """It was killed, and ends as if nobody had killed it."""
    name, _ = KILLED
    expected = json.loads((place.folder / "expected.json").read_text(encoding="utf-8"))
    before = reports_of(place.home, name)
    assert 3 <= len(before) < len(expected)
    run = place.tuner("search", "--resume", name, "--workers", "1", "--json")
    assert run.status == 0, run.err
    found = reports_of(place.home, name)
    if found != expected:  # another kind of machine: its own numbers, of the same trials
        changed = place.tuner("replay", f"{name}/0", "--json").json["changed"]
        assert changed, "the same machine reports other numbers"
        assert [report[:2] for report in found[: len(before)]] == [r[:2] for r in before]
