"""Processes a command starts and never leaves behind: not after Ctrl-C, SIGTERM, a crash, or its own SIGKILL."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from streamapp.core.errors import BusError

KEPT_LINES = 200  # of what a child wrote, for telling why it ended


class Child:
    """One `streamapp` command as a process of its own group; its output is read all the time, the last lines are kept."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None, log: Path | None = None) -> None:
        """Starts `python -m streamapp ARGUMENTS`; `log` takes all it writes. It ends by itself when its standard input ends."""
        self.name = name
        self.lines: list[str] = []
        self._first_line = threading.Event()
        self._log = log.open("w") if log is not None else None
        self.process = subprocess.Popen(  # noqa: S603  # our own program
            [sys.executable, "-m", "streamapp", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            start_new_session=True,  # Ctrl-C in a terminal reaches the command alone; it ends its children in order
            env={**os.environ, **(environment or {})},
        )
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def first_line(self, timeout_s: float) -> str:
        """Waits for the first line the child writes; raises BusError when it ends or stays silent instead."""
        if not self._first_line.wait(timeout_s) or not self.lines:
            raise BusError(
                f"the {self.name} did not start: {self.last_words() or f'silent for {timeout_s:g} s'}", "run it alone to see why"
            )
        return self.lines[0]

    def last_words(self) -> str:
        """Gives the last line the child wrote that says anything."""
        return next((line.strip() for line in reversed(self.lines) if line.strip(" |+-")), "")

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def stop(self, timeout_s: float) -> int:
        """Asks it to end (SIGTERM), waits `timeout_s`, then kills its whole group; gives its exit code."""
        if self.running:
            self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout_s)
        self._signal(signal.SIGKILL)  # whatever is left of the group, also when the leader ended well
        code = self.process.wait()
        self._reader.join(timeout_s)
        for stream in (self.process.stdin, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        return code

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self.lines.append(line.rstrip())
                self._first_line.set()
                if self._log is not None:
                    self._log.write(line)
                    self._log.flush()
                # The first line stays: it is what the child announces.
                del self.lines[1:-KEPT_LINES]
        self._first_line.set()


class Children:
    """The children of one command, ended in the reverse order of their start, whatever happens."""

    def __init__(self, timeout_s: float = 12.0) -> None:
        """`timeout_s` is what each one has for ending by itself; a worker drains within 10 s."""
        self._timeout_s = timeout_s
        self._children: list[Child] = []
        self._previous: dict[int, object] = {}

    def start(self, name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None, log: Path | None = None) -> Child:
        """Starts one more."""
        child = Child(name, arguments, environment, log)
        self._children.append(child)
        return child

    def check(self) -> None:
        """Raises BusError when one has ended."""
        for child in self._children:
            if not child.running:
                raise BusError(
                    f"the {child.name} ended with exit code {child.process.returncode}: {child.last_words()}", "run it alone to see why"
                )

    def __enter__(self) -> Self:
        # SIGTERM and SIGHUP become an exception, so that everything on the way out runs.
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._previous[number] = signal.signal(number, _leave)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # From here on nothing may interrupt: a second Ctrl-C would leave children behind.
        shielded = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *self._previous)}
        try:
            for child in reversed(self._children):
                child.stop(self._timeout_s)
        finally:
            for number, before in {**shielded, **self._previous}.items():
                signal.signal(number, before)  # type: ignore[arg-type]  # what signal.signal gave


def _leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
