"""What the program's line answers to one partition's records, in the form in which chaos reads it from the topics."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from chaos.verify import Output, Place
from streamapp import pipeline
from streamapp.core.deadletter import dead_letter
from streamapp.core.errors import Reject, RejectCode
from streamapp.core.events import Segment
from streamapp.core.route import ROUTE_NAMES

MEGABYTE = 1_000_000


def decided(serving: pipeline.Serving, partition: int, records: Sequence[tuple[bytes | None, bytes | None]]) -> dict[Place, list[Output]]:
    """Takes the records from offset 0 on; gives the outputs by place."""
    count = len(records)
    now_ms = time.time_ns() // 1_000_000
    keys, values = (list(column) for column in zip(*records, strict=True))
    one = Segment("events", partition, 1, np.arange(count), np.full(count, now_ms), keys, values, [[] for _ in records])
    plan = pipeline.plan([one], serving)
    outcome = pipeline.decide(plan, pipeline.Read(), [serving.state.new()], serving, now_ms, time.perf_counter)
    verdicts = serving.encoder.verdicts(outcome)
    decisions = serving.encoder.decisions(outcome, verdicts)
    given: dict[Place, list[Output]] = {}
    rejects = list(plan.rejects)
    for row, (verdict, decision) in enumerate(zip(verdicts, decisions, strict=True)):
        index = int(plan.index[row])
        if len(decision) > MEGABYTE:
            rejects.append(Reject(0, index, RejectCode.VERDICT_TOO_LARGE, "$", "too large", "emit"))
            continue
        role, key = ROUTE_NAMES[outcome.route[row]], keys[index]
        given[partition, index] = [Output(role, key, verdict, now_ms), Output("decisions", key, decision, now_ms)]
    for reject in rejects:
        key, value, _ = dead_letter(reject, one, now_ms)
        given[partition, reject.index] = [Output("dead-letters", key, value, now_ms)]
    return given
