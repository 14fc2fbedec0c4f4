"""Profiles from files, for the batch job: JSON lines or CSV rows to columns, a chunk at a time; what is wrong is told with its line."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.core.document import nearest
from streamapp.core.errors import ConfigError
from streamapp.core.events import Plan
from streamapp.core.features.profile import AGE, BATCH_RISK, CREATED, DAY_MS
from streamapp.core.profiles import Float64, Int64, Part, ProfileRead
from streamapp.core.times import TIME_MAX_MS, TIME_MIN_MS, UNREADABLE, epoch_ms

#: Members of a row beside the stored columns.
CREATED_AT, UPDATED_AT = "account_created_at", "updated_at"
BLOCKS, SENT, BLOCK_RATE = "blocks_received", "messages_sent", "block_rate"
_TRUTH = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


@dataclass(slots=True)
class Rows:
    """One chunk: entities (each once, the last row of it), values [n, columns] and their times [n]; and what could not be read."""

    keys: list[str]
    values: Float64
    updated_ms: Int64
    mistakes: list[str] = field(default_factory=list)  #  "line 3: follower_count: …"
    lines: int = 0
    members: set[str] = field(default_factory=set)  #  names that rows used


@dataclass(slots=True, frozen=True)
class GivenProfiles:
    """Profiles of a file, for rows that train: read as a worker reads them, all of one time, whenever a row's event was."""

    read: Callable[[Sequence[str]], ProfileRead]  #  what is known of the entities of n rows
    time_ms: int  #                                  that of the newest; an event that names no time of its own is of then
    file: dict[str, Any]  #                          name, sha256, rows: what a card says of it

    def of(self, plan: Plan, key: str) -> Float64:
        """Gives what `decide` would be given for a plan's rows [n, columns], NaN where nothing is known; `key` names the entity."""
        return self.read(plan.column(key)).values

    def provenance(self, names: Sequence[str], values: npt.NDArray[Any], declared: Iterable[str]) -> dict[str, Any]:
        """Takes features of the rows that trained [n, k] by name, and the pipeline's profile features.

        Gives how many rows have a profile, for the card. Raises ConfigError where none has: keys of another kind train nothing.
        """
        missing = [names.index(f"{name}_missing") for name in declared if name != BATCH_RISK]
        known = int((values[:, missing] == 0.0).any(axis=1).sum())
        if not known:
            raise ConfigError(f"{self.file['name']} has no profile of anybody in these rows", "name its users as the events do")
        return {"rows_with_profile": known}


def known_members(part: Part, key: str) -> tuple[str, ...]:
    """Gives what a row may say: the entity, its times, the columns, and what some of them are computed from."""
    return (key, UPDATED_AT, CREATED_AT, AGE, *(name for name in part.columns if name != CREATED), BLOCKS, SENT)


def read_rows(source: IO[bytes], part: Part, key: str, now_ms: int, *, as_csv: bool = False, size: int = 1000) -> Iterator[Rows]:
    """Gives the rows of a file, `size` lines at a time; `key` is the member that names the entity. Total: a bad line is a mistake."""
    records = _csv_records(source) if as_csv else _json_records(source)
    number = 0
    while chunk := list(islice(records, size)):
        found: dict[str, tuple[list[float], int]] = {}
        mistakes, members = [], set[str]()
        for record in chunk:
            number += 1
            if isinstance(record, str):
                mistakes.append(f"line {number}: {record}")
                continue
            members.update(record)
            try:
                entity, row, updated = row_of(record, part, key, now_ms)
            except ValueError as wrong:
                mistakes.append(f"line {number}: {wrong}")
                continue
            found[entity] = row, updated
        values = np.array([row for row, _ in found.values()], np.float64).reshape(len(found), len(part.columns))
        yield Rows(list(found), values, np.array([updated for _, updated in found.values()], np.int64), mistakes, len(chunk), members)


def row_of(record: Mapping[str, Any], part: Part, key: str, now_ms: int) -> tuple[str, list[float], int]:
    """Takes what a file says of one entity; gives its key, its columns (NaN: nothing said) and the time they are of.

    The age may be given as a day of birth (`account_created_at`) or in days before `updated_at`; the block rate as it is, or as blocks and
    messages sent: blocks / max(sent, 1). Raises ValueError that names the member, or for a row that says nothing.
    """
    entity = record.get(key)
    if isinstance(entity, int) and not isinstance(entity, bool):
        entity = str(entity)
    if not isinstance(entity, str) or not entity:
        raise ValueError(f"{key}: names nobody; write the entity's id, as in its events")
    updated = _time(record, UPDATED_AT)
    if record.keys().isdisjoint(known_members(part, key)[2:]):
        raise ValueError("names no column of a profile; what is stored of this user stays")
    updated_ms = now_ms if updated is None else updated
    row = []
    for name in part.columns:
        if name == CREATED:
            row.append(_created(record, updated_ms))
        elif name == BLOCK_RATE and record.get(BLOCK_RATE) in (None, ""):
            row.append(_number(record, BLOCKS) / max(_or_zero(_number(record, SENT)), 1.0))
        else:
            row.append(_number(record, name))
    return entity, row, updated_ms


def strangers(members: Iterable[str], part: Part, key: str) -> list[str]:
    """Gives a sentence for each member that no column is made of."""
    known = known_members(part, key)
    return [f"{name}: is read by nobody{nearest(name, known)}" for name in members if name not in known]


def _created(record: Mapping[str, Any], updated_ms: int) -> float:
    created = _time(record, CREATED_AT)
    return updated_ms - _number(record, AGE) * DAY_MS if created is None else float(created)


def _or_zero(number: float) -> float:
    return 0.0 if math.isnan(number) else number


def _number(record: Mapping[str, Any], name: str) -> float:
    value: Any = record.get(name)
    if value is None or value == "":
        return math.nan
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        value = _TRUTH.get(value.strip().lower(), value)
    try:
        number = float(value)  # of a number, or of a text that is one: what is neither raises
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name}: is no finite number; leave it out where it is not known")
    return number


def _time(record: Mapping[str, Any], name: str) -> int | None:
    value = record.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.strip().lstrip("-").isdigit():
        value = int(value)
    time = int(epoch_ms([value])[0]) if isinstance(value, str) else value
    if isinstance(time, bool) or not isinstance(time, int) or time == UNREADABLE or not TIME_MIN_MS <= time <= TIME_MAX_MS:
        raise ValueError(f"{name}: is no time; write RFC 3339 (2026-01-31T12:00:00Z) or epoch milliseconds")
    return time


def _json_records(source: IO[bytes]) -> Iterator[Mapping[str, Any] | str]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    for line in source:
        try:
            yield decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            yield "is no JSON object; write one a line"


def _csv_records(source: IO[bytes]) -> Iterator[Mapping[str, Any] | str]:
    for record in csv.DictReader(io.TextIOWrapper(source, encoding="utf-8", errors="surrogateescape", newline="")):
        yield "has more fields than the header" if None in record else record
