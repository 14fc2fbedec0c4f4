"""`streamapp state`: look into the journal, check it, and start over."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from streamapp.cli.options import json_output, settings
from streamapp.config import Settings

if TYPE_CHECKING:
    from streamapp.bus.topics import Topics
    from streamapp.core.replay import Replay
    from streamapp.core.spec import PipelineSpec

CONNECTION = ("pipeline", "bootstrap", "namespace", "events_topic")


@click.group("state")
def command() -> None:
    """Look into the state that workers keep, check its log, and start over.

    The state log, not the group's committed offset, says where a worker goes on. Resetting the group's offsets alone therefore moves
    nothing: use `streamapp state reset`, which moves both.
    """


@command.command(
    "show",
    epilog="""\b
Examples:
  streamapp state show --pipeline payments c-1042
  streamapp state show --pipeline payments card-77 --json""",
)
@click.argument("entity")
@settings(*CONNECTION, kafka=True)
@json_output
def show(settings: Settings, entity: str, as_json: bool) -> None:
    """Show what is remembered of ENTITY (a customer, a card: any local entity): its entries in every store and partition."""
    from streamapp.cli.say import say
    from streamapp.core.windows_index import hash_names

    spec, topics = _topics(settings)
    replays = asyncio.run(_replays(settings, spec, topics))
    first, second = hash_names([entity])[0].tolist()
    found: list[dict[str, Any]] = []
    for partition, replay in replays.items():
        columns = replay.state.snapshot()
        for store, kept in replay.state.stores.items():
            names, about = columns[f"{store}/name"], columns[f"{store}/about"]
            for slot in ((names[:, 0] == first) & (names[:, 1] == second)).nonzero()[0].tolist():
                low = int(about[:slot, 0].sum())
                part = slice(low, low + int(about[slot, 0]))
                times, values = columns[f"{store}/time"][part], columns[f"{store}/value"][part]
                sums = [int(total) / 10**decimals for total, decimals in zip(values.sum(0), kept.plan.decimals, strict=True)]
                found.append({
                    "partition": partition, "store": store, "entries": len(times), "seen": int(about[slot, 1]), "oldest": int(times[0]),
                    "newest": int(times[-1]), "sums": sums,
                })  # fmt: skip
    lines = [
        f"{one['store']} (partition {one['partition']}): {one['entries']} events kept, {one['seen']} seen, "
        f"{_time(one['oldest'])} to {_time(one['newest'])}, sums {', '.join(f'{total:g}' for total in one['sums']) or 'none'}"
        for one in found
    ]
    say({"entity": entity, "found": found}, "\n".join(lines) or f"Nothing is remembered of {entity}.", as_json=as_json)


@command.command(
    "verify",
    epilog="""\b
Examples:
  streamapp state verify --pipeline payments --bootstrap 127.0.0.1:9092
  streamapp state verify --pipeline payments --json""",
)
@settings(*CONNECTION, kafka=True)
@json_output
def verify(settings: Settings, as_json: bool) -> None:
    """Read the whole state log: every record, the chain of deltas, and whether each partition ends where it has to."""
    from streamapp.cli.say import say

    spec, topics = _topics(settings)
    replays = asyncio.run(_replays(settings, spec, topics, whole=True))
    parts = {
        str(partition): {
            "position": replay.position, "records": replay.records, "rows": replay.rows, "snapshots": replay.snapshots,
            "generation": replay.generation, "ids": len(replay.state.seen), "releases": [one.name for one in replay.releases.values()],
        }
        for partition, replay in replays.items()
    }  # fmt: skip
    lines = [
        f"partition {partition}: goes on at offset {one['position']}; {one['records']} records, {one['rows']} rows applied, "
        f"{one['snapshots']} snapshots used, {one['ids']} ids remembered"
        for partition, one in parts.items()
    ]
    say({"partitions": parts}, "\n".join([*lines, "The state log is whole."]), as_json=as_json)


@command.command(
    "reset",
    epilog="""\b
Examples:
  streamapp state reset --pipeline payments --to earliest    # decide everything that is still there again
  streamapp state reset --pipeline payments --to committed   # go on where the group is, with empty windows""",
)
@settings(*CONNECTION, kafka=True)
@click.option("--to", "place", type=click.Choice(["earliest", "latest", "committed"]), required=True, help="Where workers go on.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_output
def reset(settings: Settings, place: str, yes: bool, as_json: bool) -> None:
    """Forget all windows and remembered ids, and set journal and group to a new position. Stop the workers first.

    Events that are decided again get verdicts again, with the same decision ids. The group's broker refuses while a worker is running.
    """
    from streamapp.cli.say import say

    spec, topics = _topics(settings)
    if not yes:
        click.confirm(f"Forget the state of {topics.ns} and go on at {place}?", abort=True)
    positions = asyncio.run(_reset(settings, spec, topics, place))
    lines = [f"partition {partition} goes on at offset {position}, with nothing remembered" for partition, position in positions.items()]
    say({"positions": {str(partition): position for partition, position in positions.items()}}, "\n".join(lines), as_json=as_json)


def _time(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _topics(settings: Settings) -> tuple[PipelineSpec, Topics]:
    from streamapp.bus.topics import Topics
    from streamapp.config import load_pipeline

    spec = load_pipeline(settings.pipeline)
    return spec, Topics(settings.namespace or spec.namespace, events=settings.events_topic)


async def _replays(settings: Settings, spec: PipelineSpec, topics: Topics, *, whole: bool = False) -> dict[int, Replay]:
    from streamapp.bus.security import client_arguments
    from streamapp.bus.statelog import log_reader
    from streamapp.core.replay import Replay
    from streamapp.core.state import StatePlan

    plan = StatePlan(spec)
    found: dict[int, Replay] = {}
    async with log_reader(settings.bootstrap, client_arguments(settings.kafka)) as reader:
        for partition in range(await reader.partitions(topics.state)):
            found[partition] = Replay(plan.new)
            await reader.replay(topics.state, partition, found[partition], whole=whole)
    return found


async def _reset(settings: Settings, spec: PipelineSpec, topics: Topics, place: str) -> dict[int, int]:
    from streamapp.bus.producer import producing
    from streamapp.bus.security import client_arguments
    from streamapp.bus.statelog import log_reader, start_over

    client = client_arguments(settings.kafka)
    async with producing(settings.bootstrap, settings.kafka) as producer, log_reader(settings.bootstrap, client) as reader:
        group = f"{topics.ns}.{spec.pipeline.name}"
        return await start_over(settings.bootstrap, client, group, producer, reader, topics, place)
