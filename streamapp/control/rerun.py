"""Records decided a second time: the same `plan` and `decide` as on the bus, with states of their own and nothing sent anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from streamapp import pipeline
from streamapp.core.deadletter import describe
from streamapp.core.events import Plan, Segment
from streamapp.core.windows_partition import PartitionState
from streamapp.pipeline import Read, Serving

Place = tuple[int, int]  # partition, offset


class Rerun:
    """Moves on through the records of a topic; what was decided before is remembered as a worker would remember it."""

    def __init__(self, serving: Serving, reading: Callable[[Plan], Read]) -> None:
        """`reading` gives what is known beside the events of a plan."""
        self._serving, self._reading = serving, reading
        self._states: dict[int, PartitionState] = {}

    def answers(self, segments: Sequence[Segment], *, features: bool) -> Iterator[tuple[Place, bytes]]:
        """Takes records that follow, per partition, those taken before; gives each one's verdict or dead letter as JSON, by its place.

        With `features` verdicts are as on the decisions topic. Nothing is asked of the clock: `decided_at` is the latest time of a record.
        """
        serving = self._serving
        states = [self._states.setdefault(one.partition, serving.state.new()) for one in segments]
        came_ms = max((int(one.timestamps.max()) for one in segments), default=0)
        plan = pipeline.plan(segments, serving)
        outcome = pipeline.decide(plan, self._reading(plan), states, serving, came_ms, _no_clock)
        verdicts = serving.encoder.verdicts(outcome)
        told = serving.encoder.decisions(outcome, verdicts) if features else verdicts
        partitions = [one.partition for one in segments]
        for segment, offset, line in zip(plan.segment.tolist(), plan.offsets().tolist(), told, strict=True):
            yield (partitions[segment], offset), bytes(line)
        for reject in plan.rejects:
            at = segments[reject.segment]
            yield (at.partition, int(at.offsets[reject.index])), msgspec.json.encode(describe(reject, at))


def _no_clock() -> float:
    return 0.0
