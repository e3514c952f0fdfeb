"""`tuner serve`: the service for everybody who shares the machines, and its users."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing

from tuner.commands.output import home_of, say
from tuner.errors import TunerError


def run_serve(options: argparse.Namespace) -> int:
    """Serve a home until Ctrl-C or SIGTERM, or change its users."""
    home = home_of(options)
    try:
        from tuner.serve.server import ServerSettings, serve
    except ImportError as error:
        raise TunerError(
            f"tuner serve needs its web server ({error}); pip install 'tuner[serve]'"
        ) from error
    if options.add_user or options.remove_user or options.list_users:
        return _change_users(options)
    settings = ServerSettings(
        options.host, options.port, options.database, options.devices, options.address,
        options.data, options.bucket, options.allow_hub, options.allowed_host, options.users,
        options.proxy,
    )  # fmt: skip
    serve(home, settings, say)
    return 0


def _change_users(options: argparse.Namespace) -> int:
    from tuner.serve.access import new_user
    from tuner.serve.server import open_database

    with closing(open_database(home_of(options), options.database)) as database:
        if options.add_user:
            token = new_user(
                database, options.add_user, options.role, options.team,
                weight=options.weight, most_searches=options.max_searches,
                most_devices=options.max_devices, most_tokens=options.max_tokens,
            )  # fmt: skip
            say(f"the token of {options.add_user} ({options.role}), which is shown only now:")
            sys.stdout.write(f"{token}\n")
        elif options.remove_user:
            if not database.remove_user(options.remove_user):
                raise TunerError(f"there is no user {options.remove_user}")
            database.note("operator", "remove user", detail=options.remove_user)
            say(f"{options.remove_user} is no user any more")
        else:
            for user in database.users():
                sys.stdout.write(f"{user.name}\t{user.role}\t{user.team}\n")
    return 0
