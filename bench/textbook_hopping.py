"""Faust as its guide shows windows: hopping tables that each event is put into, and `topic.send` to one of three topics.

It does less than `payments` (hops instead of exact windows, the broker's time instead of the event's, a formula instead of
trees and rules, no distinct counts, no reasons, no decisions log, no check of what came): a comparison with it flatters the textbook.
"""

from __future__ import annotations

import json
import math
import sys
from datetime import timedelta

import faust

HOPS = 6  # per window
WINDOWS = {"10m": timedelta(minutes=10), "1h": timedelta(hours=1), "24h": timedelta(hours=24)}
ENTITIES = ("customer_id", "card_id", "terminal_id", "ip")

bootstrap, namespace = sys.argv[1:3]
app = faust.App(
    f"{namespace}-hopping",
    broker=f"kafka://{bootstrap}",
    store="memory://",
    topic_partitions=4,
    web_enabled=False,
    broker_session_timeout=6.0,
    broker_heartbeat_interval=1.0,
)
events = app.topic(f"{namespace}.events.v1", key_serializer="raw", value_serializer="raw")
verdicts = {
    route: app.topic(f"{namespace}.verdicts.{route}.v1", key_serializer="raw", value_serializer="raw")
    for route in ("approve", "review", "block")
}
tables = {
    (entity, name): app.Table(f"{entity}-{name}", default=list, partitions=4).hopping(size, size / HOPS, expires=size)
    for entity in ENTITIES
    for name, size in WINDOWS.items()
}


@app.agent(events)
async def decide(stream: faust.StreamT) -> None:
    async for key, value in stream.items():
        event = json.loads(value)
        amount, seen, spent = event["amount"], 0, 0.0
        for (entity, _), table in tables.items():
            name = event.get(entity)
            if name is None:
                continue
            window = table[name]
            count, total = window.value() or (0, 0.0)
            table[name] = [count + 1, total + amount]
            seen, spent = seen + count, spent + total
        probability = 1 / (1 + math.exp(-(0.01 * seen + 0.0005 * spent - 4)))
        route = "approve" if probability < 0.5 else "block" if probability >= 0.9 else "review"
        answer = {"event_id": event["event_id"], "verdict": route, "probability": probability, "seen": seen}
        await verdicts[route].send(key=key, value=json.dumps(answer).encode())


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "-l", "error", "--without-web"]
    app.main()
