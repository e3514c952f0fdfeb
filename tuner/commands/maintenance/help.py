"""`tuner help`: a group of commands, or one command."""

from __future__ import annotations

import argparse
import sys
import textwrap

from tuner.errors import TunerError
from tuner.texts.formatting import unknown

_WIDTH = 100


def run_help(options: argparse.Namespace) -> int:
    """Print the topics, a topic with its commands, or the help of a command."""
    parser, topics = options.parser, options.topics
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    if options.topic is None:
        for name, topic in topics.items():
            sys.stdout.write(f"tuner help {name:12}  {', '.join(topic.commands)}\n")
        sys.stdout.write("tuner help COMMAND       all options of a command\n")
    elif options.topic in topics:
        topic = topics[options.topic]
        texts = {action.dest: action.help for action in commands._choices_actions}
        sys.stdout.write(textwrap.fill(topic.about, _WIDTH) + "\n\n")
        for name in topic.commands:
            sys.stdout.write(f"  tuner {name:12}  {texts[name]}\n")
        sys.stdout.write("\n'tuner COMMAND --help' lists the options of a command.\n")
    elif options.topic in commands.choices:
        commands.choices[options.topic].print_help(sys.stdout)
    else:
        raise TunerError(unknown("topic", options.topic, [*topics, *commands.choices]))
    return 0
