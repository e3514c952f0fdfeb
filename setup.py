"""Puts the files of `search_spaces/` into the package `tuner`; all else is in pyproject.toml.

They are kept once, at the top of the repository, where an editable install finds them.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithSpaces(build_py):
    """Builds the packages, and `tuner/search_spaces/` with them."""

    def run(self) -> None:
        """Copy the spaces after the modules."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib, "tuner", "search_spaces")
        self.mkpath(str(folder))
        for space in sorted(Path(__file__).parent.glob("search_spaces/*.yaml")):
            self.copy_file(str(space), str(folder / space.name))


setup(cmdclass={"build_py": BuildWithSpaces})
