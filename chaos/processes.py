"""Processes under fault: workers, brokers, Redis; every one ends with this one, and what it said is in a file."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from chaos.bus import Stuck, await_true

ROOT = Path(__file__).resolve().parent.parent
KILLED = -signal.SIGKILL
#: What a broker may need to come back on a machine that has other work.
PATIENCE_S = 180.0


class Process:
    """One child; `since_ms` is when it was killed or found dead."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, stdout: int | None = None) -> None:
        self.log = log
        self._file: IO[bytes] = log.open("ab")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=self._file if stdout is None else stdout, stderr=self._file, cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(environment or {}), start_new_session=True,
        )  # fmt: skip

    @property
    def running(self) -> bool:
        """Whether it has not ended; a stopped one has not."""
        return self.process.poll() is None

    def signal(self, number: int) -> int:
        """Sends a signal; gives the epoch ms of it."""
        os.kill(self.process.pid, number)
        return time.time_ns() // 1_000_000

    def kill(self) -> int:
        """SIGKILL; gives when."""
        at_ms = self.signal(signal.SIGKILL)
        self.process.wait()
        return at_ms

    def wait(self, timeout_s: float) -> int:
        """Gives the exit code; raises Stuck when it does not end."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise Stuck(f"{self.log.name} still runs after {timeout_s:g} s") from None

    def terminate(self, timeout_s: float = 15.0) -> int:
        """SIGTERM; gives the exit code. Raises Stuck when the process does not end in time."""
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def close(self) -> None:
        """Ends it, whatever it does, and closes its log."""
        if self.running:
            os.kill(self.process.pid, signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._file):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def last_words(self) -> str:
        """Gives the last line it wrote."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""


def free_port() -> int:
    """Gives a port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def listens(port: int) -> bool:
    """Gives whether somebody takes connections on that port of this machine."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Node:
    """One Apache Kafka of ops/kafka that is ours to stop; sessions may be as short as a second."""

    def __init__(self, folder: Path, port: int | None = None, controller_port: int | None = None) -> None:
        self._port, controller = port or free_port(), controller_port or free_port()
        self._options = ["--port", str(self._port), "--dir", str(folder)]
        self._start_options = ["--controller-port", str(controller), "--heap", "512m", "--set", "group.min.session.timeout.ms=1000"]
        self._pid_file = folder / "pid"
        self.address = f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Starts it and waits until it serves, also where it takes long to recover its logs; raises Stuck with its own words."""
        try:
            self._run("start", *self._options, *self._start_options)
        except Stuck:
            if not self._pid_file.exists():
                raise
            await_true(lambda: listens(self._port), "the broker serves", PATIENCE_S)

    def stop(self) -> None:
        """Stops it in order and waits until it is gone."""
        self._run("stop", *self._options)

    def kill(self) -> None:
        """SIGKILL; waits until it is gone."""
        pid = int(self._pid_file.read_text())
        os.kill(pid, signal.SIGKILL)
        await_true(lambda: not Path(f"/proc/{pid}").exists(), "the broker is gone", 10)

    def wipe(self) -> None:
        """Stops it and removes its data."""
        self._run("stop", *self._options, "--wipe")

    def _run(self, *arguments: str) -> None:
        command = [str(ROOT / "ops/kafka/kafka"), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise Stuck(f"kafka {arguments[0]} still runs after {PATIENCE_S:g} s") from None
        if done.returncode:
            raise Stuck(f"kafka {arguments[0]}: {done.stderr.strip()}")


class Redis:
    """One redis-server that keeps nothing, to be killed, hung and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder = free_port(), folder
        self.start()

    def start(self) -> None:
        """Starts an empty one and waits until it listens."""
        options = {"--port": str(self.port), "--bind": "127.0.0.1", "--save": "", "--appendonly": "no", "--dir": str(self._folder)}
        self.process = Process(["redis-server", *(word for pair in options.items() for word in pair)], self._folder / "redis.log")
        await_true(lambda: listens(self.port), "redis listens", 10)

    def close(self) -> None:
        """Ends it."""
        self.process.close()


@contextmanager
def embedded_broker(folder: Path) -> Iterator[str]:
    """Gives the address of a `streamapp broker` of its own."""
    child = Process([sys.executable, "-m", "streamapp", "broker", "--until-stdin-closes"], folder / "broker.log", stdout=subprocess.PIPE)
    try:
        assert child.process.stdout is not None  # noqa: S101 - a pipe was asked for
        yield child.process.stdout.readline().decode().strip()
    finally:
        child.close()


def missing(*commands: str) -> list[str]:
    """Gives those of the commands that this machine does not have."""
    return [one for one in commands if shutil.which(one) is None]
