"""Options of `tuner serve`, and of the commands that talk to it."""

from __future__ import annotations

import argparse

from tuner.arguments.home import add_address
from tuner.arguments.option_types import new_name, real, search_name, whole

_ROLES = ("viewer", "user", "admin")


def add_serve(serve: argparse.ArgumentParser) -> None:
    """Add the options of `tuner serve`."""
    add_address(serve, 8000, "8000")
    serve.add_argument(
        "--address", metavar="ADDRESS",
        help="Ray cluster on which searches train: HOST:PORT of its head (default: this machine)",
    )  # fmt: skip
    serve.add_argument(
        "--devices", type=whole(1, 4096), metavar="N",
        help="devices that searches share (default: all GPUs of this machine, or else all cores)",
    )  # fmt: skip
    serve.add_argument(
        "--database", metavar="URL",
        help="database of queue and users, as postgresql://… (default: a file in the home)",
    )  # fmt: skip
    for name, metavar, text in (
        ("data", "DIR", "folder whose files spaces may name; may be repeated"),
        ("bucket", "URL", "where engine.storage may lie; may be repeated"),
        ("allowed-host", "NAME", "name by which clients call the server behind a proxy; may be "
         "repeated"),
    ):  # fmt: skip
        serve.add_argument(f"--{name}", action="append", default=[], metavar=metavar, help=text)
    serve.add_argument(
        "--allow-hub", action="store_true", help="let spaces take data from the Hugging Face hub"
    )
    serve.add_argument(
        "--users", metavar="FILE",
        help="JSON of users with their tokens, who may come in: a secret of Docker or Kubernetes",
    )  # fmt: skip
    serve.add_argument(
        "--proxy", metavar="ADDRESSES", default="127.0.0.1",
        help="addresses or networks, apart by commas, of proxies that are believed who a client is "
        "(default: %(default)s)",
    )  # fmt: skip
    users = serve.add_mutually_exclusive_group()
    users.add_argument(
        "--add-user", type=new_name, metavar="NAME",
        help="add a user, or replace the token of one; print the token, and serve nothing",
    )  # fmt: skip
    users.add_argument("--remove-user", type=search_name, metavar="NAME", help="remove a user")
    users.add_argument("--list-users", action="store_true", help="list users, roles and teams")
    serve.add_argument(
        "--role", choices=_ROLES, default="user", help="role of the user (default: %(default)s)"
    )
    serve.add_argument("--team", default="", metavar="NAME", help="team of the user")
    serve.add_argument(
        "--weight", type=real(1e-3, 1e3), default=1.0, metavar="W",
        help="share of the user relative to others (default: 1)",
    )  # fmt: skip
    for name, metavar, text in (
        ("max-searches", "N", "searches of the user that run at one time"),
        ("max-devices", "N", "devices that they have together"),
        ("max-tokens", "N", "training tokens of a day"),
    ):
        serve.add_argument(f"--{name}", type=whole(1, 2**53), metavar=metavar, help=f"most {text}")
