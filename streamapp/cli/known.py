"""What files say beside the events of `score` and `trace`: labels, known from when they were told on, and what is on the lists."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from streamapp import pipeline
from streamapp.cli.lines import records
from streamapp.cli.list_files import lines_of, records_of
from streamapp.control.dataset import reasons_left_out
from streamapp.control.told import ToldLabels
from streamapp.core.document import nearest
from streamapp.core.errors import ConfigError
from streamapp.core.events import Plan
from streamapp.core.labels import LabelRead
from streamapp.core.lists_table import ListTable
from streamapp.pipeline import Read, Serving


class Known:
    """Moves on through the labels as events come: each event sees those that were told when it came, as a worker would.

    An event comes when it happened, or right after the one before it where that happened later.
    """

    def __init__(self, serving: Serving, labels: Sequence[Path], lists: Sequence[str]) -> None:
        """`lists` are "NAME=FILE". Raises ConfigError for what the pipeline does not declare, and for lines that are no entry."""
        if labels and not serving.labels.stores:
            raise ConfigError("the pipeline has no window that labels move", 'leave out --labels, or declare one with fed_by = "labels"')
        self._serving = serving
        self._told = ToldLabels(serving.labels, labels) if labels else None
        if self._told is not None and not self._told.count and self._told.left_out:
            raise ConfigError(
                f"none of the labels can be read{reasons_left_out(self._told.left_out)}",
                "write them as on the labels topic (label.v1.json)",
            )
        self._state = serving.labels.new()
        self._lists = _listed(serving, lists) if lists else None
        self._high = 0
        for reason, count in sorted(self._told.left_out.items() if self._told else ()):
            click.secho(f"left out: {count:,} {reason}", fg="yellow", err=True)

    def edges(self, values: Sequence[bytes | None], keys: Sequence[bytes | None]) -> list[int]:
        """Takes the next records; gives where they have to be cut so that labels are equal for each part, both ends too."""
        count = len(values)
        if self._told is None or not count:
            return [0, count]
        plan = pipeline.plan([records(values, keys, 0, time.time_ns() // 1_000_000)], self._serving)
        times = np.zeros(count, np.int64)
        times[plan.index] = plan.event_time
        times = np.maximum.accumulate(np.concatenate(([self._high], times)))[1:]
        return [0, *self._told.cuts(times), count]

    def read(self, plan: Plan, read: Read) -> Read:
        """Takes a plan of one part, and what was read for it; adds what is known of labels and lists when its events come."""
        if self._told is not None and len(plan):
            first = max(self._high, int(plan.event_time[0]))
            self._high = max(first, int(plan.event_time.max()))
            self._told.into(self._state, first, self._high)
            read = replace(read, labels=LabelRead(self._state))
        return read if self._lists is None else replace(read, lists=self._lists)


def _listed(serving: Serving, given: Sequence[str]) -> ListTable:
    spec, offset = serving.spec, 0
    if serving.lists is None:
        raise ConfigError(f"pipeline {spec.pipeline.name} declares no lists", "leave out --list, or declare [lists.NAME] in its file")
    table = serving.lists.table()
    for one in given:
        name, equals, file = one.partition("=")
        if name not in spec.lists:
            raise ConfigError(f"pipeline {spec.pipeline.name} has no list {name}{nearest(name, spec.lists)}", "write --list NAME=FILE")
        if not equals or not Path(file).is_file():
            raise ConfigError(f"--list {one}: there is no file {file or name}", "write --list NAME=FILE")
        rows = list(lines_of(Path(file), {"match": None, "expires_in": None, "owner": "", "reason": ""}))
        pairs, wrong = records_of(name, spec, spec.lists[name], rows)
        if wrong:
            raise ConfigError(f"{file}: {wrong[0]}", "correct the line, or take it out")
        for key, value in pairs:
            table.apply(offset, key, value)
            offset += 1
    return table
