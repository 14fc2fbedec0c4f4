"""`streamapp lists`: put people, addresses, words and texts on the lists of a pipeline, take them off, and look."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamapp.cli.list_files import Pairs, lines_of, records_of
from streamapp.cli.options import json_output, settings
from streamapp.cli.profiles import Duration
from streamapp.config import Settings
from streamapp.core.errors import ConfigError

if TYPE_CHECKING:
    from streamapp.core.lists_entry import Entry
    from streamapp.core.spec import ListSpec, PipelineSpec

WHERE = ("pipeline", "bootstrap", "namespace")
#: Records sent, and acknowledged, at a time.
CHUNK = 2_000
#: Mistakes told one by one.
TOLD_MAX = 10
_match = click.option(
    "--match",
    type=click.Choice(["exact", "normalised", "similar"]),
    default=None,
    help="How it is compared; by default as the list's kind is.",
)
_owner = click.option("--owner", default="", help="Who keeps the entry; verdicts name it. By default the list's owner.")
_reason = click.option("--reason", default="", help="Why, for those who keep the list; no verdict carries it.")
_expires = click.option("--expires-in", type=Duration(), default=None, help="When it ends by itself, such as 30d; by default never.")


@click.group("lists")
def command() -> None:
    """Put people, addresses, words and texts on the lists of a pipeline, take them off, and look.

    Lists are declared in the pipeline file ([lists.NAME]); their entries are on the topic <namespace>.lists.v1, which every worker follows
    within a second. What is denied goes before what is allowed, and both before rules and models.
    """


@command.command(
    "add",
    epilog="""\b
Examples:
  streamapp lists add blocked_addresses 192.0.2.66 --pipeline payments --expires-in 30d --reason "card testing"
  streamapp lists add known_bad "Your parcel is held, pay here" --match similar""",
)
@click.argument("name", metavar="LIST")
@click.argument("entries", nargs=-1, required=True, metavar="ENTRY...")
@settings(*WHERE, kafka=True)
@_match
@_owner
@_reason
@_expires
@json_output
def add(
    name: str, entries: Sequence[str], settings: Settings, match: Any, owner: str, reason: str, expires_in: float | None, as_json: bool
) -> None:
    """Put entries on LIST; one that is there already is replaced. Of whole texts only hashes leave this machine."""
    spec, listed = _listed(settings, name)
    rows = [{"entry": entry, "match": match, "expires_in": expires_in, "owner": owner, "reason": reason} for entry in entries]
    pairs, wrong = records_of(name, spec, listed, rows)
    if wrong:
        raise ConfigError(wrong[0])
    _tell(name, asyncio.run(_send(settings, spec, pairs)), "put on", as_json=as_json)


@command.command(
    "remove",
    epilog="""\b
Examples:
  streamapp lists remove blocked_addresses 192.0.2.66 --pipeline payments
  streamapp lists remove known_bad --expired""",
)
@click.argument("name", metavar="LIST")
@click.argument("entries", nargs=-1, metavar="ENTRY...")
@settings(*WHERE, kafka=True)
@_match
@click.option("--expired", is_flag=True, help="Take off every entry that has expired, instead of naming some.")
@json_output
def remove(name: str, entries: Sequence[str], settings: Settings, match: Any, expired: bool, as_json: bool) -> None:
    """Take entries off LIST, however they are compared (or as --match says). Exit code 1 when one was not on it."""
    from streamapp.core.lists_entry import MATCHES_OF, compared, key_of

    if bool(entries) == expired:
        raise ConfigError("nothing is named to take off", "name entries, or --expired and none")
    spec, listed = _listed(settings, name)
    there = {key: entry for key, (entry, _) in asyncio.run(_read(settings, spec)).items() if entry.list == name}
    now_ms = time.time_ns() // 1_000_000
    if expired:
        keys = [key for key, entry in there.items() if 0 < entry.expires_at <= now_ms]
        missing: list[str] = []
    else:
        matches = (match,) if match else MATCHES_OF[listed.kind]
        of_each = [[key_of(name, one, compared(listed.kind, one, entry)) for one in matches] for entry in entries]
        keys = [key for found in of_each for key in found if key in there]
        missing = [entry for entry, found in zip(entries, of_each, strict=True) if not set(found) & set(keys)]
    told = asyncio.run(_send(settings, spec, [(key, None) for key in keys]))
    _tell(name, told | {"missing": missing}, "taken off", as_json=as_json)
    if missing:
        raise click.exceptions.Exit(1)


@command.command(
    "show",
    epilog="""\b
Examples:
  streamapp lists show --pipeline payments
  streamapp lists show blocked_addresses --pipeline payments --json
  streamapp lists show known_bad --at 1024""",
)
@click.argument("name", required=False, metavar="[LIST]")
@settings(*WHERE, kafka=True)
@click.option("--at", "before", type=click.IntRange(min=0), default=None, help="As it was at this version (the number a verdict names).")
@json_output
def show(name: str | None, settings: Settings, before: int | None, as_json: bool) -> None:
    """Show what is on LIST, or how much is on each list."""
    from streamapp.cli.say import say, table
    from streamapp.config import load_pipeline

    spec = _listed(settings, name)[0] if name else load_pipeline(settings.pipeline)
    found = asyncio.run(_read(settings, spec, before))
    now_ms = time.time_ns() // 1_000_000
    if name is None:
        counts = {one: sum(entry.list == one for entry, _ in found.values()) for one in spec.lists}
        shown = {one: {"effect": listed.effect, "kind": listed.kind, "fixed": len(listed.entries), "entries": counts[one]}
                 for one, listed in spec.lists.items()}  # fmt: skip
        words = table("", ["list", "kind", "effect", "in the file", "on the topic"])
        for one, row in shown.items():
            words.add_row(one, str(row["kind"]), str(row["effect"]), str(row["fixed"]), str(row["entries"]))
        say(shown, _drawn(words), as_json=as_json)
        return
    rows = [_row(entry, offset, now_ms) for entry, offset in found.values() if entry.list == name]
    fixed = [{"entry": text, "match": None, "owner": spec.lists[name].owner, "in_the_file": True} for text in spec.lists[name].entries]
    words = table("", ["entry", "match", "owner", "reason", "added", "ends"])
    for given in (*fixed, *rows):
        words.add_row(*(str(given.get(column) or "") for column in ("entry", "match", "owner", "reason", "added_at", "ends")))
    say({"list": name, "entries": [*fixed, *rows]}, _drawn(words), as_json=as_json)


@command.command(
    "import",
    epilog="""\b
Examples:
  streamapp lists import blocked_addresses addresses.txt --pipeline payments --owner "fraud desk"
  streamapp lists import blocked_users accounts.csv --expires-in 90d""",
)
@click.argument("name", metavar="LIST")
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@settings(*WHERE, kafka=True)
@_match
@_owner
@_reason
@_expires
@json_output
def import_(
    name: str, source: Path, settings: Settings, match: Any, owner: str, reason: str, expires_in: float | None, as_json: bool
) -> None:
    """Put every line of FILE on LIST; a file whose name ends in .csv has a header with entry, and match, expires_in, owner, reason.

    A line that cannot be an entry is told and left out; exit code 1 when there was one.
    """
    from streamapp.cli.progress import Progress

    spec, listed = _listed(settings, name)
    given = {"match": match, "expires_in": expires_in, "owner": owner, "reason": reason}
    rows = list(lines_of(source, given))
    pairs: Pairs = []
    wrong: list[str] = []
    with Progress("reading", len(rows), "entries") as progress:
        for first in range(0, len(rows), CHUNK):
            right, mistakes = records_of(name, spec, listed, rows[first : first + CHUNK], first)
            pairs += right
            wrong += mistakes
            progress.advance(len(rows[first : first + CHUNK]))
    told = asyncio.run(_send(settings, spec, pairs))
    for sentence in wrong[:TOLD_MAX]:
        click.secho(f"{source}: {sentence}", fg="yellow", err=True)
    _tell(name, told | {"left_out": len(wrong)}, "put on", as_json=as_json)
    if wrong:
        raise click.exceptions.Exit(1)


def _listed(settings: Settings, name: str) -> tuple[PipelineSpec, ListSpec]:
    from streamapp.config import load_pipeline
    from streamapp.core.document import nearest

    spec = load_pipeline(settings.pipeline)
    if name not in spec.lists:
        raise ConfigError(
            f"pipeline {spec.pipeline.name} has no list {name}{nearest(name, spec.lists)}", f"declare [lists.{name}] in its file"
        )
    return spec, spec.lists[name]


async def _send(settings: Settings, spec: PipelineSpec, pairs: Pairs) -> dict[str, Any]:
    """Writes the records; gives how many, and the version from which on they count."""
    from streamapp.bus.feed import feeder
    from streamapp.bus.security import client_arguments
    from streamapp.bus.topics import Topics
    from streamapp.cli.progress import Progress

    topics = Topics(settings.namespace or spec.namespace)
    version = None
    async with feeder(settings.bootstrap, topics.lists, client_arguments(settings.kafka), in_one_order=True) as lists:
        with Progress("sending", len(pairs), "entries") as progress:
            for first in range(0, len(pairs), CHUNK):
                part = pairs[first : first + CHUNK]
                places = await lists.send([key for key, _ in part], [value for _, value in part])
                version = int(places.offset.max()) + 1
                progress.advance(len(part))
    return {"records": len(pairs), "version": version}


async def _read(settings: Settings, spec: PipelineSpec, before: int | None = None) -> dict[bytes, tuple[Entry, int]]:
    """Gives what is on the topic now, or was before an offset: entries with their offsets, by record key."""
    from streamapp.bus.follow import follower
    from streamapp.bus.lists import whole
    from streamapp.bus.security import client_arguments
    from streamapp.bus.topics import Topics
    from streamapp.core.lists_entry import decode

    topics = Topics(settings.namespace or spec.namespace)
    found: dict[bytes, tuple[Entry, int]] = {}
    async with follower(settings.bootstrap, [topics.lists], client_arguments(settings.kafka)) as records:
        async for part, _ in whole(records, topics.lists):
            for record in part:
                if record.key is None or (before is not None and record.offset >= before):
                    continue
                try:
                    entry = decode(record.key, record.value)[-1]
                except ValueError:
                    continue  # a worker passes it over, too, and tells
                found.pop(record.key, None)
                if entry is not None:
                    found[record.key] = entry, record.offset
    return found


def _row(entry: Entry, offset: int, now_ms: int) -> dict[str, Any]:
    ends = "" if not entry.expires_at else "expired" if entry.expires_at <= now_ms else _day(entry.expires_at)
    return {
        "entry": (entry.text or f"sha256 {(entry.sha256 or '')[:12]}").strip(), "match": entry.match, "owner": entry.owner,
        "reason": entry.reason, "added_at": _day(entry.added_at), "expires_at": entry.expires_at or None, "ends": ends, "offset": offset,
    }  # fmt: skip


def _day(epoch_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(epoch_ms / 1000))


def _drawn(table: Any) -> str:
    from rich.console import Console

    console = Console()
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()


def _tell(name: str, told: dict[str, Any], what: str, *, as_json: bool) -> None:
    from streamapp.cli.say import say

    words = f"{told['records']} entries {what} {name}" + (f"; in force from version {told['version']} on." if told["version"] else ".")
    for entry in told.get("missing", ()):
        words += f"\n{entry} is not on it."
    if told.get("left_out"):
        words += f"\n{told['left_out']} lines were left out."
    say({"list": name, **told}, words, as_json=as_json)
