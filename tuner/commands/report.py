"""`tuner report`: write a search as a page, and its pictures as PNGs."""

from __future__ import annotations

import argparse
import webbrowser

from tuner.commands.output import consoles, in_utf8, print_json, recorded_home
from tuner.formatting import counted
from tuner.report.write import check_folder, check_output, samples_of, write_pictures, write_report
from tuner.trained.load_search import load_search


def run_report(options: argparse.Namespace) -> int:
    """Write the report of a search."""
    check_output(options.output)
    if options.png:
        check_folder(options.png)
    home = recorded_home(options)
    result = load_search(options.search, home=home)
    page = write_report(result, options.output, samples_of(result, home, in_utf8(options.prompt)))
    pictures = write_pictures(result, options.png) if options.png else []
    results, _ = consoles(options)
    megabytes = page.stat().st_size / 1e6
    results.print(
        f"wrote {page}: {result.name}, {counted(len(result.trials), 'trial')}, {megabytes:.1f} MB",
        highlight=False,
        soft_wrap=True,
    )
    for path in pictures:
        results.print(f"wrote {path}", highlight=False, soft_wrap=True)
    if options.open:
        webbrowser.open(page.resolve().as_uri())
    print_json(
        options,
        {"search": result.name, "report": str(page), "pictures": [str(path) for path in pictures]},
    )
    return 0
