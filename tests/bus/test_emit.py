"""Outputs reach their topics whole; what the broker would refuse for its size becomes a dead letter, and every count adds up."""

from __future__ import annotations

import json

from streamapp.adapters.metrics import Metrics
from streamapp.bus.emit import MESSAGE_OVERHEAD_BYTES, Delivery
from streamapp.bus.follow import Record, follower
from streamapp.bus.producer import producing
from streamapp.bus.topics import Topics
from streamapp.control.partial import observe
from streamapp.core.events import Segment
from streamapp.core.observe import WindowedObservations
from streamapp.core.partials import Layout
from tests.line import linear_model, run, segment, serving_of

SERVING = serving_of(linear_model())
LONG_ID = "x" * 200


def event(event_id: str) -> bytes:
    return json.dumps({"event_id": event_id, "user_id": "u", "text": "see you there", "event_time": 5}).encode()


async def read(broker: str, topics: Topics, count: int) -> dict[str, list[Record]]:
    names = [topics.approve, topics.review, topics.block, topics.decisions, topics.dead_letters]
    found: dict[str, list[Record]] = {name: [] for name in names}
    async with follower(broker, names, fetch_wait_ms=10) as records:
        while sum(map(len, found.values())) < count:
            for record in await records.poll(100):
                found[record.topic].append(record)
    return found


async def test_a_verdict_too_large_for_the_broker_is_a_dead_letter_and_its_neighbours_are_not(embedded: str, namespace: str) -> None:
    topics = Topics(namespace)
    outcome = run(SERVING, [segment([event("a"), event(LONG_ID), b"{", event("b")])])
    verdicts = SERVING.encoder.verdicts(outcome)
    decisions = SERVING.encoder.decisions(outcome, verdicts)
    room = max(len(decisions[0]), len(decisions[2])) + MESSAGE_OVERHEAD_BYTES
    async with producing(embedded, {}) as producer:
        delivery = Delivery(producer, topics, room)
        await delivery.ready()
        await delivery.emit(outcome, verdicts, decisions)
    found = await read(embedded, topics, 6)
    assert sorted(json.loads(record.value or b"")["event_id"] for record in found[topics.decisions]) == ["a", "b"]
    reasons = {record.headers["dlq.reason"]: record for record in found[topics.dead_letters]}
    assert set(reasons) == {b"verdict_too_large", b"invalid_json"}
    assert reasons[b"verdict_too_large"].value == event(LONG_ID) and reasons[b"verdict_too_large"].headers["source-offset"] == b"1"

    metrics = Metrics("messages", "test")
    metrics.decided(outcome, SERVING.deciders, SERVING.release, 2000)
    told = metrics.exposition().decode()
    assert "streamapp_events_total 4.0" in told and 'streamapp_dead_letters_total{reason="verdict_too_large"} 1.0' in told
    windows = WindowedObservations(Layout.of(SERVING.features.names, SERVING.deciders, {}), 1000, 100)
    observe(windows, outcome, 2000)
    (partial,) = windows.flush()
    assert partial.n == 2 and partial.of("rejects").sum() == 2


async def test_trace_context_goes_with_the_verdict_and_other_headers_stay_behind(embedded: str, namespace: str) -> None:
    topics = Topics(namespace)
    plain = segment([event("a")])
    headers = [("traceparent", b"00-1-2-01"), ("tracestate", b"v=1"), ("secret", b"s")]
    traced = Segment(plain.topic, 2, 1, plain.offsets, plain.timestamps, [b"key"], plain.values, [headers])
    outcome = run(SERVING, [traced])
    verdicts = SERVING.encoder.verdicts(outcome)
    async with producing(embedded, {}) as producer:
        delivery = Delivery(producer, topics)
        await delivery.ready()
        await delivery.emit(outcome, verdicts, SERVING.encoder.decisions(outcome, verdicts))
    records = [record for records in (await read(embedded, topics, 2)).values() for record in records]
    for record in records:
        assert (record.key, record.partition) == (b"key", 2)
        assert record.headers == {"source-offset": b"0", "traceparent": b"00-1-2-01", "tracestate": b"v=1"}
