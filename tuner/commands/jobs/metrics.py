"""`tuner metrics`: an exporter for Prometheus."""

from __future__ import annotations

import argparse
import signal
import sys

from tuner.commands.output import say
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.jobs.metrics import HomeMetrics


def run_metrics(options: argparse.Namespace) -> int:
    """Serve the metrics of a home until Ctrl-C or SIGTERM."""
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError as error:
        raise TunerError(
            "tuner metrics needs Prometheus' client; pip install 'tuner[metrics]'"
        ) from error
    home = Home.of(options.home)
    registry = CollectorRegistry()
    registry.register(HomeMetrics(home))
    try:
        server, thread = start_http_server(options.port, options.host, registry)
    except OSError as error:
        raise TunerError(
            f"cannot listen on {options.host}:{options.port}: {error.strerror}; give another --port"
        ) from error
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    say(f"metrics of {home.root}: http://{options.host}:{options.port}/metrics (Ctrl-C ends it)")
    try:
        thread.join()
    except KeyboardInterrupt:
        pass
    finally:
        server.shutdown()
        server.server_close()
    return 0
