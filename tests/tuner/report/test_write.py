from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tuner.results.finished_search import result_in
from tuner.errors import TunerError
from tuner.report.write import check_output, write_report
from tuner.results.result import SearchResult


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return result_in(tmp_path_factory.mktemp("space"), "trials: 2, sampler: random")


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.slow
def test_report_that_does_not_fit_leaves_the_old_one(tmp_path: Path, result: SearchResult) -> None:
    path = tmp_path / "old.html"
    path.write_text("an earlier report")
    with files_of_at_most(1_000_000), pytest.raises(TunerError) as caught:
        write_report(result, path)
    assert str(caught.value) == f"{path} cannot be written: File too large"
    assert path.read_text() == "an earlier report"
    assert list(tmp_path.iterdir()) == [path]  # nor is a part of the new one left


@pytest.mark.slow
def test_report_replaces_what_a_link_names(tmp_path: Path, result: SearchResult) -> None:
    """With the permissions of the umask, whatever those of the earlier report were."""
    shared, link = tmp_path / "shared.html", tmp_path / "link.html"
    shared.write_text("old")
    shared.chmod(0o600)
    link.symlink_to(shared)
    before = os.umask(0o027)
    try:
        write_report(result, link)
    finally:
        os.umask(before)
    assert link.is_symlink()
    assert shared.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert shared.stat().st_mode & 0o777 == 0o640


def test_path_that_can_be_written_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "old.html").write_text("old")
    check_output(tmp_path / "old.html")
    check_output(tmp_path / "new.html")
    assert (tmp_path / "old.html").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.html"]


@pytest.mark.parametrize("path", ["/proc/report.html", "/proc/version"])
def test_path_that_cannot_be_written_is_refused(path: str) -> None:
    """Not even root writes there."""
    with pytest.raises(TunerError, match=f"{path} cannot be written"):
        check_output(path)


@pytest.mark.parametrize("name", ["a.png", "a.SVG", "a.pdf"])
def test_name_of_a_picture_is_refused(tmp_path: Path, name: str) -> None:
    """A page is no picture, and has one for each of its plots."""
    with pytest.raises(TunerError, match=r"saved as PNG or SVG; name it a\.html$"):
        check_output(tmp_path / name)
