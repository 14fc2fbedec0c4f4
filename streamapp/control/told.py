"""Labels from files, given out as time goes by: what a worker would have known when each event came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamapp.control.dataset import batches
from streamapp.core.errors import ConfigError
from streamapp.core.events import Segment
from streamapp.core.labels import LabelPlan, Labels, LabelState
from streamapp.core.times import TIME_MAX_MS

Int64 = npt.NDArray[np.int64]


class ToldLabels:
    """All labels of some files in the order in which they were told.

    One told before the first window looks for it may be taken in early without any answer changing; the others, the late ones, are taken in
    between the events before and after them.
    """

    def __init__(self, plan: LabelPlan, files: Sequence[Path]) -> None:
        """Reads JSON lines (.gz too), in any order. Raises ConfigError for a label that does not say when it was told."""
        self.left_out: Counter[str] = Counter()
        parts = [self._read(plan, lines, path) for path in files for lines in batches(path)]
        whole: Labels | None = None
        if parts:
            ids, said, who = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "said", "who"))
            whole = Labels(ids, said, who)
        self._labels = whole
        self.count = 0 if whole is None else len(whole.ids)
        told = np.zeros(0, np.int64) if whole is None else whole.said[:, 1]
        late = np.zeros(0, np.bool_) if whole is None else told > whole.said[:, 0] + plan.delay_ms
        order = np.argsort(told, kind="stable")
        self._early, self._late = order[~late[order]], order[late[order]]
        self._early_told, self._late_told = told[self._early], told[self._late]
        self._early_taken = self._late_taken = 0

    def cuts(self, times: Int64) -> Sequence[int]:
        """Takes event times in order, ms [n]; gives the rows before which a late label came: a batch has to end there."""
        first, last = np.searchsorted(self._late_told, (times[0], times[-1]), side="right")
        found: list[int] = np.unique(np.searchsorted(np.maximum.accumulate(times), self._late_told[first:last], side="left")).tolist()
        return [row for row in found if 0 < row < len(times)]

    def into(self, state: LabelState, first_ms: int, last_ms: int) -> None:
        """Moves `state` to where it has to be for events of [first_ms, last_ms] between which `cuts` finds nothing."""
        if self._labels is None:
            return
        early, late = (
            int(np.searchsorted(told, until, side="right")) for told, until in ((self._early_told, last_ms), (self._late_told, first_ms))
        )
        chosen = np.concatenate((self._early[self._early_taken : early], self._late[self._late_taken : late]))
        self._early_taken, self._late_taken = max(early, self._early_taken), max(late, self._late_taken)
        state.take(self._labels.where(chosen))

    def _read(self, plan: LabelPlan, lines: list[bytes], path: Path) -> Labels:
        n = len(lines)
        never = np.full(n, TIME_MAX_MS, np.int64)
        segment = Segment("labels", 0, 0, np.arange(n, dtype=np.int64), never, [None] * n, lines, [()] * n)
        found = plan.decode([segment])
        self.left_out.update(f"label rejected: {reject.code.value}" for reject in found.rejects)
        if (found.said[:, 1] == TIME_MAX_MS).any():
            raise ConfigError(f"{path}: a label names no labelled_at", "say when it was told: nothing may know it before")
        return found
