from __future__ import annotations

from pathlib import Path

import pytest

from tuner.errors import TunerError
from tuner.report.write import check_folder, check_output


def test_path_that_can_be_written_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "old.html").write_text("old")
    check_output(tmp_path / "old.html")
    check_output(tmp_path / "new.html")
    check_folder(tmp_path / "pictures")
    assert (tmp_path / "old.html").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.html", "pictures"]


@pytest.mark.parametrize("path", ["/proc/report.html", "/proc/version"])
def test_path_that_cannot_be_written_is_refused(path: str) -> None:
    """Not even root writes there."""
    with pytest.raises(TunerError, match=f"{path} cannot be written"):
        check_output(path)


def test_folder_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(TunerError, match="/proc/sys cannot be written"):
        check_folder("/proc/sys")
