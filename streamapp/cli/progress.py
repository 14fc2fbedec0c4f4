"""Progress of long work on stderr: a bar on a terminal, nothing elsewhere, so that pipes and logs stay clean."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import rich.progress

#: Work that is over sooner than this shows no bar.
PATIENCE_S = 0.5
_STRIDE = 256


class Progress:
    """Counts work done; draws a bar with rate and time left once the work takes longer than PATIENCE_S."""

    def __init__(self, what: str, total: int | None, unit: str, *, show: bool = True) -> None:
        """`total` None: unknown, the bar pulses. `show` False: never draws."""
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self._wanted = show and sys.stderr.isatty()
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None
        self._started = time.monotonic()

    def advance(self, by: int = 1) -> None:
        """Notes that `by` more are done."""
        before = self.done
        self.done += by
        if self._wanted and before // _STRIDE != self.done // _STRIDE:
            self._draw()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._draw()
            self._bar.stop()

    def _draw(self) -> None:
        if self._bar is None:
            if time.monotonic() - self._started < PATIENCE_S:
                return
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.TextColumn("{task.completed:,}" + (f" of {self.total:,}" if self.total is not None else "") + f" {self.unit}"),
                progress.TextColumn("{task.fields[rate]:,.0f}/s"),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(self.what, total=self.total, rate=0.0)
            self._bar.start()
        if self._task is not None:
            elapsed = time.monotonic() - self._started
            self._bar.update(self._task, completed=self.done, rate=self.done / elapsed)
