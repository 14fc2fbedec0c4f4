"""`streamapp profiles`: put user features where workers read them, keep them fresh, and look at one."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from streamapp.cli.options import json_output, settings
from streamapp.cli.profiles_file import TOLD_MAX, profile_part, warn_left_out
from streamapp.config import Settings
from streamapp.core.errors import ConfigError

if TYPE_CHECKING:
    from streamapp.adapters.profiles_redis import RedisProfileStore
    from streamapp.core.profiles import Part
    from streamapp.core.spec import PipelineSpec

T = TypeVar("T")

STORE = ("pipeline", "namespace", "profiles_redis")
#: How often the batch job is meant to run, and how many of its runs may be missed before a profile is gone.
PERIOD, PERIODS_KEPT = "6h", 3


class Duration(click.ParamType):
    """A whole number and a unit, as in pipeline files; becomes seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Gives seconds."""
        from streamapp.core.velocity import duration_ms

        if isinstance(value, float):
            return value
        try:
            return duration_ms(value) / 1000
        except ConfigError as wrong:
            self.fail(str(wrong), param, ctx)


FILE = click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True)
_form = click.option("--csv", "as_csv", is_flag=True, help="Rows are CSV under a header; a file whose name ends in .csv is.")


@click.group("profiles")
def command() -> None:
    """Put user features where workers read them, keep them fresh, and look at one.

    A row names its user (the pipeline's key field) and what is known: account_created_at or account_age_days, is_verified, follower_count,
    messages_sent_7d, spam_reports_received, avg_message_length, reply_rate, block_rate (or blocks_received and messages_sent), and the
    pipeline's own profile features. What is left out is missing, and marked as such in verdicts. --profiles-redis, or the setting `redis`,
    says where.
    """


@command.command(
    "load",
    epilog="""\b
Examples:
  streamapp profiles load users.jsonl --profiles-redis redis://127.0.0.1:6379/0
  streamapp profiles load --csv - < users.csv""",
)
@click.argument("source", type=FILE, metavar="FILE|-")
@settings(*STORE)
@_form
@click.option("--ttl", type=Duration(), default="18h", show_default=True, help="A profile that is not loaded again is gone after this.")
@json_output
def load(source: Path, settings: Settings, as_csv: bool, ttl: float, as_json: bool) -> None:
    """Write the profiles in FILE, replacing those of the same users; others stay. Exit code 1 when a line was left out."""
    spec, part = _part(settings)
    told = _run(_load(source, settings, spec, part, ttl, as_csv=as_csv))
    _tell(told, as_json=as_json)
    if told["left_out"]:
        raise click.exceptions.Exit(1)


@command.command(
    "refresh",
    epilog="""\b
Examples:
  streamapp profiles refresh users.jsonl --profiles-redis redis://127.0.0.1:6379/0
  streamapp profiles refresh users.csv --every 1h""",
)
@click.argument("source", type=FILE, metavar="FILE")
@settings(*STORE)
@_form
@click.option("--every", "period", type=Duration(), default=PERIOD, show_default=True, help="Time from one load to the next.")
@click.option("--runs", type=click.IntRange(min=1), default=None, help="Stop after so many loads.")
@json_output
def refresh(source: Path, settings: Settings, as_csv: bool, period: float, runs: int | None, as_json: bool) -> None:
    """Load FILE now and then every six hours, as it is by then; until Ctrl-C.

    A load that fails is told and tried again at its next turn: profiles live for three periods, so two may fail before any is gone. Their
    age is that of the file, so that a job that no longer writes it is seen (streamapp_feature_age_seconds). With --runs the exit code is 1
    when the last load failed.
    """
    from streamapp.cli.say import warn

    if str(source) == "-":
        raise ConfigError("standard input cannot be read a second time", "name a file, or use `streamapp profiles load -`")
    spec, part = _part(settings)
    for done in count(1):
        began, failed = time.monotonic(), False
        try:
            _tell(_run(_load(source, settings, spec, part, PERIODS_KEPT * period, as_csv=as_csv)), as_json=as_json)
        except (ConfigError, OSError) as failure:
            failed = True
            warn(str(failure) if done == runs else f"{failure}; the next load is in {period:g} s")
        if done == runs:
            raise click.exceptions.Exit(1 if failed else 0)
        time.sleep(max(0.0, began + period - time.monotonic()))


@command.command(
    "show",
    epilog="""\b
Examples:
  streamapp profiles show user-17 --profiles-redis redis://127.0.0.1:6379/0
  streamapp profiles show user-17 --json""",
)
@click.argument("entity")
@settings(*STORE)
@json_output
def show(settings: Settings, entity: str, as_json: bool) -> None:
    """Show what is stored of ENTITY, how old it is, and what an event of this moment would get."""
    import numpy as np

    from streamapp.cli.say import say
    from streamapp.core.features.profile import compute
    from streamapp.core.profiles import KNOWN, UNKNOWN, ProfilePlan

    spec, _ = _part(settings)
    plan = ProfilePlan.of(spec.features.profile)
    found = _run(_found(settings, spec, plan, entity))
    now_ms = time.time_ns() // 1_000_000
    parts: dict[str, Any] = {}
    columns = []
    for part, value in zip(plan.parts, found, strict=True):
        values, updated, state = part.unpack([value])
        columns.append(values)
        if state[0] != UNKNOWN:
            parts[part.name] = {"age_s": (now_ms - int(updated[0])) / 1000} if state[0] == KNOWN else {"wrong_type": True}
    features = compute(spec.features.profile, plan.columns, np.hstack(columns), np.array([now_ms]))
    known = {name: None if np.isnan(value[0]) else float(value[0]) for name, value in features.items()}
    lines = [f"Nothing is stored of {entity}."] if not parts else []
    for name, about in parts.items():
        lines.append(
            f"{name}: something else stands here; load it again" if "wrong_type" in about else f"{name}: {about['age_s']:,.0f} s old"
        )
    lines += [f"  {name:24} {'–' if value is None else f'{value:g}'}" for name, value in known.items()] if parts else []
    say({"entity": entity, "stored": parts, "features": known}, "\n".join(lines), as_json=as_json)


def _part(settings: Settings) -> tuple[PipelineSpec, Part]:
    from streamapp.config import load_pipeline

    spec = load_pipeline(settings.pipeline)
    return spec, profile_part(spec)


def _store(settings: Settings, spec: PipelineSpec) -> RedisProfileStore:
    from streamapp.adapters.profiles_redis import RedisProfileStore

    url = settings.profiles_redis or settings.redis
    if not url:
        raise ConfigError("no Redis is named", "give --profiles-redis redis://HOST:PORT/0 or set STREAMAPP_REDIS")
    return RedisProfileStore(url, settings.namespace or spec.namespace)


def _run(work: Coroutine[Any, Any, T]) -> T:
    from streamapp.adapters.redis_line import FAILURES

    try:
        return asyncio.run(work)
    except FileNotFoundError as gone:
        raise ConfigError(f"{gone.filename} is not there any more", "name the file that the batch job writes") from gone
    except FAILURES as failure:
        problem = str(failure) or "no answer in time"
        raise ConfigError(f"Redis does not take or give profiles: {problem}", "check --profiles-redis (or STREAMAPP_REDIS)") from failure


async def _found(settings: Settings, spec: PipelineSpec, plan: Any, entity: str) -> list[bytes | None]:
    store = _store(settings, spec)
    try:
        return [await store.find(part, entity) for part in plan.parts]
    finally:
        await store.close()


async def _load(source: Path, settings: Settings, spec: PipelineSpec, part: Part, ttl_s: float, *, as_csv: bool) -> dict[str, Any]:
    from streamapp.cli.progress import Progress
    from streamapp.cli.say import warn
    from streamapp.control.profiles import read_rows, strangers

    store = _store(settings, spec)
    began = time.monotonic()
    now_ms = time.time_ns() // 1_000_000
    written, left_out, told, members = 0, 0, list[str](), set[str]()
    opened: IO[bytes] = sys.stdin.buffer if str(source) == "-" else source.open("rb")
    try:
        of_ms = now_ms if opened is sys.stdin.buffer else int(source.stat().st_mtime * 1000)  # noqa: ASYNC240 - nothing else runs here
        with Progress("loading", None, "profiles") as progress:
            for rows in read_rows(opened, part, spec.pipeline.key, of_ms, as_csv=as_csv or source.suffix == ".csv"):
                if rows.keys:
                    await store.write(part, rows.keys, rows.values, rows.updated_ms, ttl_s)
                written += len(rows.keys)
                left_out += len(rows.mistakes)
                told += rows.mistakes[: TOLD_MAX - len(told)]
                progress.advance(rows.lines)
                members |= rows.members
        for sentence in strangers(sorted(members), part, spec.pipeline.key):
            warn(sentence)
        if written:
            await store.loaded(of_ms, ttl_s)
    finally:
        await store.close()
        if opened is not sys.stdin.buffer:
            opened.close()
    return {"written": written, "left_out": left_out, "mistakes": told, "seconds": round(time.monotonic() - began, 3), "ttl_s": ttl_s}


def _tell(told: dict[str, Any], *, as_json: bool) -> None:
    from streamapp.cli.say import say

    warn_left_out(told["mistakes"], told["left_out"])
    kept_h = told["ttl_s"] / 3600
    left = f"; {told['left_out']:,} lines were left out" if told["left_out"] else ""
    say(told, f"{told['written']:,} profiles written in {told['seconds']:.1f} s, kept for {kept_h:g} h{left}.", as_json=as_json)
