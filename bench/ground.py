"""What every benchmark stands on: a broker, the same events for all, and rates measured from outside, without the start."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streamapp.bus.embedded import EmbeddedBroker
from streamapp.bus.feed import feeder
from streamapp.bus.topics import Topics, create_topics
from streamapp.control.generate import Mix, messages

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PARTITIONS = 4
FEED_RECORDS = 10_000
SAMPLE_S = 0.02
#: The first tenth of a backlog is start: connecting, joining the group, first fetches, warm caches. Rates begin after it.
START_SHARE = 0.1

# A topic that was created a moment ago has no leader yet; the client says so and tries again.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Broker:
    """Where it is and what it is; the embedded one keeps little, so that less is fed to it."""

    address: str
    real: bool


@dataclass(frozen=True, slots=True)
class Rate:
    """One measured piece of one round: events per second, and the processor time of its process per event."""

    events_per_s: float
    cpu_us: float


@contextmanager
def broker(bootstrap: str | None, *, embedded: bool = False) -> Iterator[Broker]:
    """Gives the broker at `bootstrap`, else a real Kafka started for this run, else (no Java, or asked for) the embedded one."""
    if bootstrap:
        yield Broker(bootstrap, real=True)
    elif embedded or not (shutil.which("java") and (shutil.which("mvn") or list(ROOT.glob(".kafka/libs-*/complete")))):
        with EmbeddedBroker() as one:
            yield Broker(one.address, real=False)
    else:
        port, controller = free_port(), free_port()
        with tempfile.TemporaryDirectory(prefix="streamapp-bench-") as folder:
            options = ["--port", str(port), "--dir", f"{folder}/kafka"]
            command = [str(ROOT / "ops/kafka/kafka")]
            try:
                subprocess.run([*command, "start", *options, "--controller-port", str(controller)], check=True, stdout=subprocess.PIPE)
                yield Broker(f"127.0.0.1:{port}", real=True)
            finally:
                subprocess.run([*command, "stop", *options], check=True)


def free_port() -> int:
    """Gives a port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def good_events(count: int, seed: int = 7) -> tuple[list[bytes | None], list[bytes | None]]:
    """Gives keys and values of `count` valid generated messages: every engine decides the same ones, and none has to reject."""
    made = list(messages(count, Mix(seed=seed, garbage=0.0, drift_at=None)))
    return [one.key for one in made], [one.value for one in made]


async def fill(where: Broker, names: Topics, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> None:
    """Creates the topics (where the broker can) and writes the backlog into the events topic."""
    if where.real:
        await create_topics(where.address, names, partitions=PARTITIONS)
    async with feeder(where.address, names.events) as feed:
        for at in range(0, len(keys), FEED_RECORDS):
            await feed.send(keys[at : at + FEED_RECORDS], values[at : at + FEED_RECORDS])


async def create(where: Broker, *names: str, partitions: int = PARTITIONS, **settings: str) -> None:
    """Creates further topics; the embedded broker makes them by itself."""
    if not where.real:
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=where.address)
    await admin.start()
    try:
        wanted = {key.replace("_", "."): value for key, value in settings.items()}
        answer = await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=wanted) for name in names])
        if any(error[1] for error in answer.topic_errors):
            raise RuntimeError(f"topics were refused: {answer}")
    finally:
        await admin.close()


def namespace(what: str) -> str:
    """Gives a topic prefix that was never used."""
    return f"bench-{what}-{uuid.uuid4().hex[:8]}"


@contextmanager
def process(*arguments: str, environ: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Runs a Python command line; its last words are shown when it fails. On leaving it gets SIGTERM and has to end well."""
    with tempfile.TemporaryFile("w+") as words:
        child = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=words, text=True, cwd=ROOT, env=os.environ | (environ or {})
        )
        try:
            yield child
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
            child.wait(timeout=30)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            if child.stdout is not None:
                child.stdout.close()
            if child.returncode not in (0, -signal.SIGTERM):
                words.seek(0)
                sys.stderr.write(f"{' '.join(arguments)} ended with {child.returncode}:\n{words.read()[-4000:]}\n")


def own_report(*arguments: str, timeout_s: float = 300) -> Rate:
    """Runs a piece that measures itself and prints one line {"events", "seconds", "cpu_s"}."""
    with process(*arguments) as child:
        out, _ = child.communicate(timeout=timeout_s)
        told = json.loads(out)
    return Rate(told["events"] / told["seconds"], told["cpu_s"] / told["events"] * 1e6)


async def outputs_of(child: subprocess.Popen[str], where: Broker, topics: Sequence[str], total: int, timeout_s: float = 300) -> Rate:
    """Watches the end offsets of a process' output topics until `total` records are there; its rate after the start."""
    measured = psutil.Process(child.pid)
    consumer = AIOKafkaConsumer(bootstrap_servers=where.address)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)]
        first: tuple[int, float, float] | None = None
        deadline = time.monotonic() + timeout_s
        while True:
            done = sum((await consumer.end_offsets(partitions)).values())
            now, cpu = time.perf_counter(), sum(measured.cpu_times()[:2])
            if first is None and done >= total * START_SHARE:
                first = done, now, cpu
            if done >= total:
                break
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{done:,} of {total:,} outputs, then the process ended or the time was up")
            await asyncio.sleep(SAMPLE_S)
    finally:
        await consumer.stop()
    if first is None or done == first[0]:
        raise RuntimeError(f"all {total:,} events were decided between two samples: use more events")
    return Rate((done - first[0]) / (now - first[1]), (cpu - first[2]) / (done - first[0]) * 1e6)


class Laps:
    """What a piece that measures itself counts: events after the first tenth, with the time and processor time they took."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._first: tuple[int, float, float] | None = None

    def add(self, events: int) -> bool:
        """Counts `events` more; gives whether all are there, and prints the report then."""
        self._done += events
        now, cpu = time.perf_counter(), time.process_time()
        if self._first is None and self._done >= self._total * START_SHARE:
            self._first = self._done, now, cpu
        if self._done < self._total or self._first is None:
            return False
        count, began, used = self._first
        print(json.dumps({"events": self._done - count, "seconds": now - began, "cpu_s": cpu - used}), flush=True)
        return True


def spread(values: Sequence[float]) -> dict[str, float]:
    """Gives n, median, least and largest."""
    return {"n": len(values), "median": statistics.median(values), "least": min(values), "largest": max(values)}


def machine() -> dict[str, Any]:
    """Gives where and what was measured: processor, cores, memory, system, Python, commit."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ""
    )
    commit = _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    return {
        "processor": model or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": commit,
        "load_before": round(os.getloadavg()[0], 2),
    }


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def tell(figures: Mapping[str, Any], *, as_json: bool) -> None:
    """Writes what was measured to stdout: one JSON object, or a line per figure."""
    if as_json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    for name, value in figures.items():
        sys.stdout.write(f"{name:30} {value}\n")
