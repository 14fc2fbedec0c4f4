"""Faust as its guide shows it: an agent that gets one event, a Table it counts in, and `topic.send` to one of three topics."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import faust
from textbook_work import Scorer, features, verdict

bootstrap, namespace, models = sys.argv[1:4]
app = faust.App(
    f"{namespace}-textbook",
    broker=f"kafka://{bootstrap}",
    store="memory://",
    topic_partitions=4,
    web_enabled=False,
    broker_session_timeout=6.0,  # all that the embedded broker allows; the default of 60 s changes nothing else here
    broker_heartbeat_interval=1.0,
)
events = app.topic(f"{namespace}.events.v1", key_serializer="raw", value_serializer="raw")
verdicts = {
    route: app.topic(f"{namespace}.verdicts.{route}.v1", key_serializer="raw", value_serializer="raw")
    for route in ("approve", "review", "block")
}
seen = app.Table("seen", default=int, partitions=4)
scorer = Scorer(Path(models))


@app.agent(events)
async def decide(stream: faust.StreamT) -> None:
    async for key, value in stream.items():
        event = json.loads(value)
        user = event["user_id"]
        seen[user] += 1
        (probability,) = scorer.probabilities([features(event["text"])])
        route, answer = verdict(event, probability, seen[user])
        await verdicts[route].send(key=key, value=answer)


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "-l", "error", "--without-web"]  # there may be two on one machine
    app.main()
