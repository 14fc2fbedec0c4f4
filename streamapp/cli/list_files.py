"""Entries of lists from files: a line each, or CSV with a header."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamapp.core.errors import ConfigError

if TYPE_CHECKING:
    from streamapp.core.spec import ListSpec, PipelineSpec

COLUMNS = ("entry", "match", "expires_in", "owner", "reason")

Pairs = list[tuple[bytes, bytes | None]]


def lines_of(source: Path, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Gives the entries of a file, with what was `given` for all of them and what its line says; raises ConfigError for no such file."""
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            if source.suffix != ".csv":
                yield from ({**given, "entry": line.rstrip("\r\n"), "line": number} for number, line in enumerate(file, 1) if line.strip())
                return
            rows = csv.DictReader(file)
            if "entry" not in (rows.fieldnames or ()) or set(rows.fieldnames or ()) - set(COLUMNS):
                raise ConfigError(
                    f"{source} has the columns {', '.join(rows.fieldnames or ())}", f"there are {', '.join(COLUMNS)}; entry is needed"
                )
            for row in rows:
                yield {
                    **given,
                    **{column: value for column, value in row.items() if value},
                    "entry": row["entry"] or "",
                    "line": rows.line_num,
                }
    except (UnicodeDecodeError, csv.Error) as wrong:
        raise ConfigError(f"{source} cannot be read: {wrong}", "save it as UTF-8") from wrong


def records_of(
    name: str, spec: PipelineSpec, listed: ListSpec, rows: Iterable[Mapping[str, Any]], first: int = 0
) -> tuple[Pairs, list[str]]:
    """Gives the records of the rows that can be entries, and what is wrong with the others."""
    from streamapp.core.lists_entry import encode, entry_of
    from streamapp.core.velocity import duration_ms

    pairs: Pairs = []
    wrong: list[str] = []
    now_ms = time.time_ns() // 1_000_000
    for row in rows:
        ends = row["expires_in"]
        try:
            after_ms = 0 if ends is None else duration_ms(ends) if isinstance(ends, str) else int(ends * 1000)
            key, entry = entry_of(
                name, listed, row["entry"], row["match"], owner=row["owner"] or spec.pipeline.owner, reason=row["reason"],
                added_at=now_ms, expires_at=now_ms + after_ms if after_ms else 0,
            )  # fmt: skip
        except ConfigError as mistake:
            wrong.append(f"line {row['line']}: {mistake}" if "line" in row else str(mistake))
        else:
            pairs.append((key, encode(entry)))
    return pairs, wrong
