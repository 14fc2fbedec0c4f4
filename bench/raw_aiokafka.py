"""The floor: what aiokafka alone does. `read` only takes records; `answer` decodes each, writes a tiny verdict and awaits the broker."""

from __future__ import annotations

import asyncio
import sys
import time

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from ground import Laps

BATCH_RECORDS = 2048


async def read(bootstrap: str, topic: str, total: int) -> None:
    laps = Laps(total)
    async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=f"{topic}.read", auto_offset_reset="earliest") as consumer:
        while True:
            found = await consumer.getmany(timeout_ms=100, max_records=BATCH_RECORDS)
            if laps.add(sum(map(len, found.values()))):
                return


async def answer(bootstrap: str, topic: str, verdicts: str, total: int) -> None:
    laps = Laps(total)
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=f"{topic}.answer", auto_offset_reset="earliest", enable_auto_commit=False
    )
    async with consumer, AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True) as producer:
        committed = time.monotonic()
        while True:
            found = await consumer.getmany(timeout_ms=100, max_records=BATCH_RECORDS)
            acknowledged = []
            for place, records in found.items():
                batch = producer.create_batch()
                for record in records:
                    value = orjson.dumps({"id": orjson.loads(record.value)["event_id"], "verdict": "approve"})
                    if batch.append(key=record.key, value=value, timestamp=None) is None:
                        acknowledged.append(await producer.send_batch(batch, verdicts, partition=place.partition))
                        batch = producer.create_batch()
                        batch.append(key=record.key, value=value, timestamp=None)
                acknowledged.append(await producer.send_batch(batch, verdicts, partition=place.partition))
            await asyncio.gather(*acknowledged)
            if time.monotonic() - committed > 1:
                await consumer.commit()
                committed = time.monotonic()
            if laps.add(sum(map(len, found.values()))):
                return


if __name__ == "__main__":
    mode, bootstrap, topic, *verdicts, total = sys.argv[1:]
    asyncio.run(read(bootstrap, topic, int(total)) if mode == "read" else answer(bootstrap, topic, *verdicts, int(total)))
