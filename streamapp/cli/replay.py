"""`streamapp replay`: what lies on the events topic decided again, beside what was decided then; nothing is sent anywhere."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

import click

from streamapp.cli.moment import Moment
from streamapp.cli.options import json_output, settings
from streamapp.config import Settings

if TYPE_CHECKING:
    from streamapp.bus.topics import Topics
    from streamapp.cli.score_stores import StoresOfScore
    from streamapp.control.differences import Differences
    from streamapp.control.rerun import Place
    from streamapp.pipeline import Serving

#: Events taken at once, to be decided in parts that know the same; it changes speed, never a decision.
SLICE = 2_048
#: How far the clocks of producers may be before the brokers': an answer is looked for from so long before --from, and, since a worker may
#: have been behind, until so long after --to.
BEFORE_MS, AFTER_MS = 3_600_000, 86_400_000


@click.command(
    "replay",
    epilog="""\b
Examples:
  streamapp replay --bootstrap HOST:PORT > verdicts.jsonl
  streamapp replay --compare                                       # is everything still decided as it was?
  streamapp replay --compare --pipeline stricter.toml --from 7d    # what would this file have changed in a week?
  streamapp replay --pipeline payments --from 2026-01-31T12:00:00Z --to 2026-01-31T13:00:00Z --features -o hour.jsonl""",
)
@settings("pipeline", "bootstrap", "namespace", "events_topic", "models", "language", "profiles_redis", kafka=True)
@click.option("--from", "from_ms", type=Moment(), help="Tell of events that came then or later: a time, or how long ago (2h, 7d).")
@click.option("--to", "to_ms", type=Moment(), help="Leave out events that came then or later.")
@click.option("--warm-up", metavar="DURATION", help="Begin so long before --from instead of with the first event; windows know no more.")
@click.option("--features", is_flag=True, help="Add the values of all features and the sha256 of the text, as on the decisions topic.")
@click.option("--compare", is_flag=True, help="Tell what differs from what workers answered, instead of the answers.")
@click.option("--output", "-o", type=click.File("wb"), help="Write the answers to a file; without it and --compare: to stdout.")
@json_output
def command(
    settings: Settings,
    from_ms: int | None,
    to_ms: int | None,
    warm_up: str | None,
    features: bool,
    compare: bool,
    output: IO[bytes] | None,
    as_json: bool,
) -> None:
    """Decide what lies on the events topic again, with the pipeline and models given here; nothing is sent anywhere.

    One JSON line for each event, in the order they came. Windows and remembered ids begin empty with the first event that is still
    there, or --warm-up before --from. Labels and lists are known as their topics told them then; profiles are those of now. Windows
    that cross partitions see all partitions in the order of time, which workers see only about so.

    --compare looks for answers until a day after --to; of an event that was answered again (after `state reset`), the last one counts.
    Answers are kept in a temporary file meanwhile, about 1 KB each, 3 KB with features.
    """
    from streamapp.bus.topics import Topics
    from streamapp.cli.absent import without
    from streamapp.cli.progress import Progress
    from streamapp.cli.replay_words import tell
    from streamapp.cli.say import warn
    from streamapp.cli.score_stores import StoresOfScore
    from streamapp.cli.serve import load
    from streamapp.config import load_pipeline
    from streamapp.core.velocity import duration_ms

    if warm_up is not None and from_ms is None:
        raise click.UsageError("--warm-up is how long before --from to begin; give --from as well.")
    if from_ms is not None and to_ms is not None and from_ms > to_ms:
        raise click.UsageError("--from is later than --to, so that no event lies between them.")
    since_ms = None if warm_up is None or from_ms is None else from_ms - duration_ms(warm_up)
    serving = load(settings, load_pipeline(settings.pipeline))
    for sentence in without(settings, serving):
        warn(sentence)
    topics = Topics(settings.namespace or serving.spec.namespace, events=settings.events_topic)
    if output is None and not compare:
        output = sys.stdout.buffer
    if output is not None:
        output.write(b"")  # the file is new from here on, also where nothing comes
    logged = serving.spec.verdict.decisions
    with (
        StoresOfScore(settings, serving, risk_cache=False) as stores,
        Progress("deciding", None, "events", show=output is not sys.stdout.buffer or not sys.stdout.isatty()) as progress,
        TemporaryFile() as spool,
    ):
        places: dict[Place, tuple[int, int]] = {}
        told = logged if compare and output is None else features or (compare and logged)
        for came_ms, place, line in _answers(settings, serving, topics, stores, since_ms, to_ms, told):
            progress.advance()
            if (from_ms is not None and came_ms < from_ms) or (to_ms is not None and came_ms >= to_ms):
                continue
            if output is not None:
                output.write(line + b"\n")
            if compare:
                places[place] = spool.tell(), len(line)
                spool.write(line)
        if compare:
            found, releases = _compared(settings, serving, topics, spool, places, from_ms, to_ms)
            tell(found, len(places) - found.compared, releases, serving.release, as_json=as_json)


def _answers(
    settings: Settings, serving: Serving, topics: Topics, stores: StoresOfScore, since_ms: int | None, to_ms: int | None, features: bool
) -> Iterator[tuple[int, Place, bytes]]:
    """Gives (when it came, its place, its answer) of every event, in the order they came."""
    from contextlib import AsyncExitStack

    from streamapp.bus.follow import follower
    from streamapp.bus.past import segments, slices
    from streamapp.bus.security import client_arguments
    from streamapp.cli.known_then import KnownThen
    from streamapp.cli.say import warn
    from streamapp.cli.score import reading
    from streamapp.control.rerun import Rerun

    shared, client, stack = serving.shared.new(), client_arguments(settings.kafka), AsyncExitStack()
    again = Rerun(serving, lambda plan: known.read(reading(plan, serving, shared, stores, None)))
    with asyncio.Runner() as runner:
        known = runner.run(KnownThen.read_from(serving, topics, settings.bootstrap, client))
        events = runner.run(stack.enter_async_context(follower(settings.bootstrap, [topics.events], client, since_ms=since_ms)))
        try:
            pieces, told = slices(events, runner.run(events.ends(to_ms)), SLICE), since_ms is None and to_ms is None
            while (records := runner.run(anext(pieces, None))) is not None:
                if not told and not all(record.appended for record in records):
                    warn(f"{topics.events} keeps the producers' times: a range goes by their clocks, and ends where one of them is ahead.")
                    told = True
                for part in known.parts(records):
                    found = dict(again.answers(segments(part), features=features))
                    for record in part:
                        place = record.partition, record.offset
                        yield record.timestamp_ms, place, found[place]
        finally:
            runner.run(stack.aclose())


def _compared(
    settings: Settings,
    serving: Serving,
    topics: Topics,
    spool: IO[bytes],
    places: dict[Place, tuple[int, int]],
    from_ms: int | None,
    to_ms: int | None,
) -> tuple[Differences, set[str]]:
    """Reads what workers answered beside what `places` says of `spool`; gives what differs, and the releases that decided then."""
    import orjson

    from streamapp.bus.follow import follower
    from streamapp.bus.lists import whole
    from streamapp.bus.security import client_arguments
    from streamapp.cli.answered import Answered
    from streamapp.control.differences import Differences

    logged, members = serving.spec.verdict.decisions, serving.encoder.members
    answered = [topics.decisions] if logged else [topics.approve, topics.review, topics.block]

    async def read(then: Answered) -> None:
        since_ms = None if from_ms is None else from_ms - BEFORE_MS
        kafka = client_arguments(settings.kafka)
        async with follower(settings.bootstrap, [*answered, topics.dead_letters], kafka, since_ms=since_ms) as outputs:
            ends = await outputs.ends(None if to_ms is None else to_ms + AFTER_MS)
            async for found, _ in whole(outputs, "answers", ends):
                for record in found:
                    then.take(record)

    apart = {members.get(name, "") for name in ("decided_at", "stages", "versions")} | (set() if logged else {"features", "text_sha256"})
    told, releases, versions = Differences(apart, members.get("verdict", "")), set[str](), members.get("versions", "")
    with TemporaryFile() as kept:
        then = Answered(kept, places, topics.events)
        asyncio.run(read(then))
        for where, was in then.records():
            at, length = places[where]
            spool.seek(at)
            now = orjson.loads(spool.read(length))
            event_id = members.get("event_id", "")
            if "dead_letter" in now:
                now = {name: now[name] for name in ("dead_letter", "path")}
            if event_id in was and event_id in now and was[event_id] != now[event_id]:
                continue  # of another events topic, that had this offset before
            if "dead_letter" not in was:
                by = was.get(versions)
                releases.add(str(by.get("release", "?")) if isinstance(by, dict) else "?")
            told.take(where, was, now)
    return told, releases
