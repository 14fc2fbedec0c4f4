"""The first thing one tries when the textbook is slow: `take()` brings lists, so that the model is called once for many events."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import faust
from textbook_work import Scorer, features, verdict

TAKEN, WITHIN_S = 200, 0.05

bootstrap, namespace, models = sys.argv[1:4]
app = faust.App(
    f"{namespace}-take",
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
# No Table: inside `take` there is no current event, so a table cannot know which partition it writes. The count is left out.
scorer = Scorer(Path(models))


@app.agent(events)
async def decide(stream: faust.StreamT) -> None:
    async for values in stream.take(TAKEN, within=WITHIN_S):
        batch = [json.loads(value) for value in values]
        for event, probability in zip(batch, scorer.probabilities([features(event["text"]) for event in batch]), strict=True):
            route, answer = verdict(event, probability, 0)
            await verdicts[route].send(key=str(event["user_id"]).encode(), value=answer)


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "-l", "error"]
    app.main()
