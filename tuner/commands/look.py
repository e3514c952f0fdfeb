"""Commands that look at spaces, searches and the installation."""

from __future__ import annotations

import argparse

from tuner.commands.output import consoles, home_of, print_json, say, space_of
from tuner.errors import TunerError


def ui(options: argparse.Namespace) -> int:
    """Compare the runs in MLflow."""
    from tuner.ui import has_browser, serve

    return serve(
        home_of(options),
        options.host,
        options.port,
        say,
        search=options.search,
        browser=options.browser and has_browser(),
    )


def validate(options: argparse.Namespace) -> int:
    """Say what a space means."""
    from tuner.home import Home
    from tuner.validate import describe_space

    space = space_of(options)
    results, _ = consoles(options)
    home = Home.of(options.home)  # not made: validating begins nothing
    described = describe_space(results, space, options.space, home, options.plot)
    print_json(options, described)
    return 0


def symbols(options: argparse.Namespace) -> int:
    """Print the symbol table."""
    from tuner.inspect import print_symbols

    results, _ = consoles(options)
    print_json(options, print_symbols(results))
    return 0


def searches(options: argparse.Namespace) -> int:
    """List past searches."""
    from tuner.inspect import print_searches
    from tuner.record import Record

    results, _ = consoles(options)
    print_json(options, print_searches(results, Record(home_of(options).tracking_uri)))
    return 0


def show(options: argparse.Namespace) -> int:
    """Show the trials of a search, or one in full."""
    from tuner.comparison import print_comparison
    from tuner.inspect import print_search, print_trial
    from tuner.record import Record

    if options.run and options.by:
        raise TunerError("give a run id or --by, not both")
    results, _ = consoles(options)
    record = Record(home_of(options).tracking_uri)
    if options.by:
        shown = print_comparison(results, record, record.search(options.search), options.by)
    elif options.run:
        shown = print_trial(results, record, record.trial(options.run))
    else:
        shown = print_search(results, record, record.search(options.search))
    print_json(options, shown)
    return 0


def compare(options: argparse.Namespace) -> int:
    """Trials side by side."""
    from tuner.compare import print_compared
    from tuner.record import Record

    if len(options.runs) < 2:
        raise TunerError("give two or more trials; 'tuner show' lists their run ids")
    results, _ = consoles(options)
    record = Record(home_of(options).tracking_uri)
    print_json(options, print_compared(results, record, options.runs))
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Check the installation."""
    from tuner.doctor import examine

    results, _ = consoles(options)
    findings = examine(results, home_of(options))
    print_json(options, {name: finding for name, (_, finding) in findings.items()})
    return 0 if all(ok for ok, _ in findings.values()) else 1
