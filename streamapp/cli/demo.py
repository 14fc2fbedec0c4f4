"""`streamapp demo`: broker, worker and generated events on this machine, watched until every event is answered."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from streamapp.cli.children import Children
from streamapp.cli.options import json_output, settings
from streamapp.config import KAFKA_PREFIX, PREFIX, Settings
from streamapp.core.errors import BusError

if TYPE_CHECKING:
    from streamapp.bus.topics import Topics
    from streamapp.cli.demo_run import Phase, Run
    from streamapp.core.spec import PipelineSpec

DEFAULT_EVENTS = 50_000
#: The first part comes at a steady rate, to show latency; the rest as fast as it is answered, to show throughput.
STEADY_SHARE = 0.6
STEADY_PER_S = 2_500.0
_BROKER_START_S = 20.0
#: The embedded broker answers a long poll when it ends, not when a record comes: long ones would be all the latency there is.
_EMBEDDED_FETCH_WAIT_MS = 4
_WORKER_START_S = 180.0  # the very first start compiles kernels


@click.command(
    "demo",
    epilog="""\b
Examples:
  streamapp demo
  streamapp demo --events 5000 --json
  streamapp demo --pipeline payments               # weeks of payments in half a minute, and labels that come a week after them
  streamapp demo --input events.jsonl               # real events; a field `label` (spam, ham) gives precision and recall
  streamapp demo --bootstrap 127.0.0.1:9092         # a real Kafka; topics of its own, removed afterwards""",
)
@settings("pipeline", "models", kafka=True)
@click.option("--events", "-n", type=click.IntRange(min=1), help=f"How many.  [default: {DEFAULT_EVENTS}, or all of --input]")
@click.option("--rate", type=click.FloatRange(min=1), default=STEADY_PER_S, show_default=True, help="Events per second of the steady part.")
@click.option("--input", "source", type=click.File("rb"), metavar="FILE|-", help="Events as JSON lines instead of generated ones.")
@click.option("--bootstrap", metavar="HOST:PORT", help="A real Kafka instead of the embedded broker.")
@click.option("--seed", type=int, default=7, show_default=True, help="Of the generated events.")
@click.option("--log", type=click.Path(file_okay=False, path_type=Path), help="Directory for what broker and worker write.")
@json_output
def command(settings: Settings, as_json: bool, **wanted: Any) -> None:
    """Run everything on this machine and watch it decide.

    Starts an in-memory broker and a worker, feeds generated messages (chat, hidden spam in bursts, garbage, a drift half-way) or payments
    (three kinds of fraud, garbage, labels when they are told), and shows throughput, latency, verdicts, dead letters and drift. Ends with
    the figures and fails unless events = verdicts + dead letters.
    """
    from streamapp.cli.absent import check_directory
    from streamapp.cli.demo_report import figures, report
    from streamapp.cli.demo_source import GENERATED, no_generator
    from streamapp.config import load_pipeline

    wish = Wish(load_pipeline(settings.pipeline), quiet=as_json, **wanted)
    check_directory(settings)
    if wish.source is None and wish.spec.pipeline.name not in GENERATED:
        raise no_generator(wish.spec.pipeline.name)
    with Children() as children:
        run = _run(children, settings, wish)
    found = figures(run)
    report(found, run, as_json=as_json)
    if not found["accounted"]:
        click.secho("Not every event is accounted for: events and answers differ.", fg="red", err=True)
        sys.exit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the demo was asked for."""

    spec: PipelineSpec = field(kw_only=False)
    events: int | None
    rate: float
    source: IO[bytes] | None
    bootstrap: str | None
    seed: int
    log: Path | None
    quiet: bool

    @property
    def total(self) -> int | None:
        """Events to come; None where only the end of the input tells."""
        return DEFAULT_EVENTS if self.events is None and self.source is None else self.events

    def log_file(self, name: str) -> Path | None:
        """Gives where the child `name` writes to."""
        if self.log is None:
            return None
        self.log.mkdir(parents=True, exist_ok=True)
        return self.log / f"{name}.log"


def _run(children: Children, settings: Settings, wish: Wish) -> Run:
    from rich.console import Console

    namespace = f"{wish.spec.namespace}-demo-{uuid.uuid4().hex[:8]}"
    with Console(stderr=True, quiet=wish.quiet).status("Starting broker and worker …") as status:
        if wish.bootstrap is None:
            broker = children.start("broker", ["broker", "--until-stdin-closes"], log=wish.log_file("broker"))
            address = broker.first_line(_BROKER_START_S).strip()
        else:
            address = wish.bootstrap
        own = replace(settings, bootstrap=address, namespace=namespace)
        return asyncio.run(_with_topics(children, own, wish, status.stop))


async def _with_topics(children: Children, settings: Settings, wish: Wish, begun: Callable[[], None]) -> Run:
    """On a real Kafka the run makes topics of its own and removes them; the embedded broker makes them by itself."""
    from streamapp.bus.security import client_arguments
    from streamapp.bus.topics import Topics, create_topics, delete_topics

    topics, client = Topics(settings.namespace), client_arguments(settings.kafka)
    if wish.bootstrap is None:
        return await _with_worker(children, settings, wish, topics, begun)
    await create_topics(settings.bootstrap, topics, partitions=settings.partitions, client=client)
    try:
        return await _with_worker(children, settings, wish, topics, begun)
    finally:
        await delete_topics(settings.bootstrap, topics, client=client)


async def _with_worker(children: Children, settings: Settings, wish: Wish, topics: Topics, begun: Callable[[], None]) -> Run:
    from rich.console import Console

    from streamapp.bus.feed import feeder
    from streamapp.bus.follow import follower
    from streamapp.bus.security import client_arguments
    from streamapp.cli.demo_run import Run
    from streamapp.cli.demo_source import LabelFeed, source_of
    from streamapp.cli.demo_view import View

    client = client_arguments(settings.kafka)
    answers = [topics.approve, topics.review, topics.block, topics.dead_letters, topics.monitoring]
    async with (
        feeder(settings.bootstrap, topics.events, client) as feed,
        feeder(settings.bootstrap, topics.labels, client) as labels,
        follower(settings.bootstrap, answers, client, fetch_wait_ms=_EMBEDDED_FETCH_WAIT_MS) as follow,
    ):
        port = _free_port()
        children.start(
            "worker",
            _worker_arguments(settings, port),
            _worker_environment(settings, embedded=wish.bootstrap is None),
            wish.log_file("worker"),
        )
        await _ready(children, port)
        begun()
        source = source_of(wish.spec.pipeline.name, wish.spec.pipeline.key, wish.source, wish.total or 0, wish.seed)
        told = None if source.labels is None else LabelFeed(labels, source.labels)
        run = Run(feed, follow, topics, source, _phases(wish), told)
        place = "embedded broker" if wish.bootstrap is None else "Kafka"
        title = f"streamapp demo · pipeline {wish.spec.pipeline.name} · {place} at {settings.bootstrap}"
        with View(Console(quiet=wish.quiet), run, wish.total, title) as view:
            await run.go(view.tick, children.check)
        return run


def _worker_arguments(settings: Settings, port: int) -> list[str]:
    arguments = ["worker", "--until-stdin-closes", "--pipeline", settings.pipeline, "--bootstrap", settings.bootstrap]
    arguments += ["--namespace", settings.namespace, "--metrics-port", str(port), "--log-level", "warning"]
    return arguments + (["--models", settings.models] if settings.models else [])


def _worker_environment(settings: Settings, *, embedded: bool) -> dict[str, str]:
    """Kafka settings travel as environment: an argument would show a password to everybody on this machine."""
    paced = {f"{PREFIX}FETCH_WAIT_MS": str(_EMBEDDED_FETCH_WAIT_MS)} if embedded and "fetch_wait_ms" not in settings.origins else {}
    return paced | {f"{KAFKA_PREFIX}{key.upper().replace('.', '_')}": str(value) for key, value in settings.kafka.items()}


async def _ready(children: Children, port: int) -> None:
    """Waits until the worker says that it has loaded its model and its partitions; raises BusError when it ends or does not."""
    began = time.monotonic()
    while time.monotonic() - began < _WORKER_START_S:
        children.check()
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /healthz/ready HTTP/1.0\r\n\r\n")
            answer = await reader.readline()
            writer.close()
            if b" 200 " in answer:
                return
        await asyncio.sleep(0.05)
    raise BusError(f"the worker was not ready within {_WORKER_START_S:g} s", "see what it writes: --log DIRECTORY")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _phases(wish: Wish) -> list[Phase]:
    from streamapp.cli.demo_run import Phase

    if wish.total is None:
        return [Phase("as fast as it goes", None, None)]
    steady = int(wish.total * STEADY_SHARE)
    return [Phase("steady flow", steady, wish.rate), Phase("as fast as it goes", wish.total - steady, None)]
