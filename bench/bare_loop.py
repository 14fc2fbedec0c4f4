"""The yardstick for the reference work: a loop by hand over plain aiokafka that gives the same verdicts, and nothing around it.

Poll all partitions, msgspec per record, one compiled kernel over the windows, msgspec per verdict, a batch per topic and partition, the
state's new rows once the verdicts are acknowledged, two micro-batches on their way. No group, recovery, late or out-of-order events,
garbage, metrics, drift or reasons. `bench/reference_work.py --engine bare` runs it where a worker would run, and counts from outside.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
import numba
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

BATCH_RECORDS, IN_FLIGHT = 2048, 2
WINDOWS_MS = np.array([60_000, 3_600_000, 86_400_000], np.int64)
ROUTES = ("approve", "review", "block")


class Transaction(msgspec.Struct):
    event_id: str
    user_id: str
    amount: float
    ts: float


class Verdict(msgspec.Struct):
    id: str
    decision: str
    score: float
    count60: int
    sum3600: float


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def slide(users, now_ms, cents, windows_ms, used, newest, newer, at_ms, paid, oldest, count, total, counts, sums):  # type: ignore[no-untyped-def]
    """Adds each row to its user's list and lets every window forget what is too old; gives counts and sums after each row."""
    for row in range(users.size):
        user, now = users[row], now_ms[row]
        at_ms[used], paid[used], newer[used] = now, cents[row], -1
        if newest[user] >= 0:
            newer[newest[user]] = used
        newest[user] = used
        for window in range(windows_ms.size):
            if oldest[user, window] < 0:
                oldest[user, window] = used
            count[user, window] += 1
            total[user, window] += cents[row]
            first = oldest[user, window]
            while at_ms[first] <= now - windows_ms[window]:
                count[user, window] -= 1
                total[user, window] -= paid[first]
                first = newer[first]
            oldest[user, window] = first
            counts[row, window], sums[row, window] = count[user, window], total[user, window]
        used += 1
    return used


class Windows:
    """One partition's users."""

    def __init__(self, events: int = 1 << 21, users: int = 1 << 17) -> None:
        self._numbers: dict[str, int] = {}
        self._used = 0
        self._newest, self._newer = np.full(users, -1, np.int32), np.empty(events, np.int32)
        self._at_ms, self._paid = np.empty(events, np.int64), np.empty(events, np.int64)
        many = users, len(WINDOWS_MS)
        self._oldest, self._count, self._total = np.full(many, -1, np.int32), np.zeros(many, np.int32), np.zeros(many, np.int64)

    def add(self, names: Sequence[str], now_ms: Any, cents: Any) -> tuple[Any, Any, Any]:
        """Gives the users' numbers, and (rows, windows) counts and sums."""
        numbers = self._numbers
        users = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int32)
        counts, sums = np.empty((len(names), len(WINDOWS_MS)), np.int32), np.empty((len(names), len(WINDOWS_MS)), np.int64)
        self._used = slide(
            users, now_ms, cents, WINDOWS_MS, self._used, self._newest, self._newer, self._at_ms, self._paid,
            self._oldest, self._count, self._total, counts, sums,
        )  # fmt: skip
        return users, counts, sums


class Loop:
    """Takes, decides and answers until it is killed."""

    def __init__(self, given: argparse.Namespace, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
        self._given, self._consumer, self._producer = given, consumer, producer
        self._windows: defaultdict[int, Windows] = defaultdict(Windows)
        self._decode, self._encode = msgspec.json.Decoder(Transaction).decode, msgspec.json.Encoder().encode
        self._answered: dict[TopicPartition, int] = {}
        self._room = asyncio.Semaphore(IN_FLIGHT)

    async def run(self) -> None:
        """Runs for ever; raises KafkaError."""
        self._decide(0, [])  # compiles
        committed = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._room.acquire()
                await asyncio.sleep(self._given.wait_ms / 1000)
                found = await self._consumer.getmany(timeout_ms=200, max_records=BATCH_RECORDS)
                if not found:
                    self._room.release()
                    continue
                decided = {place: self._decide(place.partition, records) for place, records in found.items()}
                answers = [
                    await self._producer.send_batch(batch, topic, partition=place.partition)
                    for place, (verdicts, _) in decided.items()
                    for topic, batch in verdicts
                ]
                tasks.create_task(self._settle(answers, decided, {place: records[-1].offset + 1 for place, records in found.items()}))
                if time.monotonic() - committed > 1 and self._answered:
                    await self._consumer.commit(dict(self._answered))
                    committed = time.monotonic()

    def _decide(self, partition: int, records: Sequence[Any]) -> tuple[list[tuple[str, Any]], bytes]:
        events = [self._decode(record.value) for record in records]
        now_ms = np.rint(np.array([event.ts for event in events], np.float64) * 1000).astype(np.int64)
        cents = np.rint(np.array([event.amount for event in events], np.float64) * 100).astype(np.int64)
        users, counts, sums = self._windows[partition].add([event.user_id for event in events], now_ms, cents)
        sum3600 = sums[:, 1] / 100
        score = 1 / (1 + np.exp(-(0.01 * counts[:, 0] + 0.0005 * sum3600 - 2)))
        routes = (score >= 0.5).astype(np.int8) + (score >= 0.8)
        batches: dict[str, Any] = {}
        rows = zip(records, events, routes.tolist(), score.tolist(), counts[:, 0].tolist(), sum3600.tolist(), strict=True)
        for record, event, route, scored, count, total in rows:
            name = ROUTES[route]
            if name not in batches:
                batches[name] = self._producer.create_batch()
            value = self._encode(Verdict(event.event_id, name, scored, count, total))
            batches[name].append(key=record.key, value=value, timestamp=None, headers=[("source-offset", b"%d" % record.offset)])
        told = [(getattr(self._given, name), batch) for name, batch in batches.items()]
        moved = struct.pack("<qq", records[0].offset, records[-1].offset) if records else b""
        return told, moved + users.tobytes() + now_ms.tobytes() + cents.tobytes()

    async def _settle(self, answers: Sequence[Any], decided: Any, reached: dict[TopicPartition, int]) -> None:
        await asyncio.gather(*answers)
        kept = []
        for place, (_, rows) in decided.items():
            batch = self._producer.create_batch()
            batch.append(key=None, value=rows, timestamp=None)
            kept.append(await self._producer.send_batch(batch, self._given.state, partition=place.partition))
        await asyncio.gather(*kept)
        self._answered |= reached
        self._room.release()


async def main(given: argparse.Namespace) -> None:
    """Connects and runs."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=given.bootstrap, group_id=f"{given.state}.bare", auto_offset_reset="earliest", enable_auto_commit=False,
        fetch_max_wait_ms=50, check_crcs=False,
    )  # fmt: skip
    producer = AIOKafkaProducer(bootstrap_servers=given.bootstrap, linger_ms=0, max_batch_size=1 << 20, acks="all", enable_idempotence=True)
    async with consumer, producer:
        consumer.assign([TopicPartition(given.topic, at) for at in given.partitions])
        await Loop(given, consumer, producer).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "topic", *ROUTES, "state"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--partitions", type=int, nargs="+", required=True)
    parser.add_argument("--wait-ms", type=float, default=0.0, help="before each poll, so that events gather")
    asyncio.run(main(parser.parse_args()))
