"""`streamapp worker`: the line on the bus, as one process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading

import click

from streamapp.cli.options import settings
from streamapp.cli.sparing import Sparing
from streamapp.config import Settings

_LOG_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"
#: Libraries that tell at `info` what is of use to their authors only.
_TALKATIVE = ("aiokafka", "faust", "mode", "asyncio", "numba")


@click.command(
    "worker",
    epilog="""\b
Examples:
  streamapp worker --pipeline messages --bootstrap 127.0.0.1:9092
  streamapp worker --kafka-config client.properties --namespace staging --metrics-port 9465
  streamapp config show                    # every setting, its value and where it comes from""",
)
@settings("pipeline", "bootstrap", "namespace", "models", "delivery", "language", "metrics_host", "metrics_port", "log_level", kafka=True)
@click.option("--until-stdin-closes", is_flag=True, hidden=True, help="End with the process that holds our standard input.")
def command(settings: Settings, until_stdin_closes: bool) -> None:
    """Decide events from a broker until SIGTERM or Ctrl-C.

    Start as many as there are partitions at most; they share them. A stop drains what is in flight within 10 s and commits it. SIGHUP
    loads the newest model beside the one that serves, checks it, and swaps it in. Metrics and health are on --metrics-port.
    """
    from streamapp.cli.say import warn
    from streamapp.cli.serve import serve
    from streamapp.config import load_pipeline

    logging.basicConfig(level=settings.log_level.upper(), format=_LOG_FORMAT, datefmt="%Y-%m-%dT%H:%M:%S", force=True)
    for handler in logging.getLogger().handlers:
        handler.addFilter(Sparing(_TALKATIVE))
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.getLogger().level))
    for sentence in settings.warnings():
        warn(sentence)
    if until_stdin_closes:
        threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    asyncio.run(serve(settings, load_pipeline(settings.pipeline)))


def _stop_at_end_of_input() -> None:
    while os.read(0, 4096):
        pass  # what is written to us has no meaning; only its end has
    os.kill(os.getpid(), signal.SIGTERM)
