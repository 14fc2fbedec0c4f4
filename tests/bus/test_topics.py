"""The topics: names, what is declared of them, and creating and checking them on a real broker."""

from __future__ import annotations

import socket

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streamapp.bus.topics import DAY_MS, DECLARED, Found, Topics, check_topics, create_topics, differences
from streamapp.core.errors import BusError, ConfigError


def as_declared(topics: Topics, partitions: int) -> dict[str, Found]:
    return {name: Found(declared.partitions or partitions, dict(declared.settings)) for name, declared in topics.names().items()}


def test_names_are_the_contract() -> None:
    topics = Topics("messages")
    assert {role: getattr(topics, role) for role in DECLARED} == {
        "events": "messages.events.v1",
        "approve": "messages.verdicts.approve.v1",
        "review": "messages.verdicts.review.v1",
        "block": "messages.verdicts.block.v1",
        "decisions": "messages.decisions.v1",
        "dead_letters": "messages.dead-letters.v1",
        "late": "messages.late.v1",
        "labels": "messages.labels.v1",
        "monitoring": "messages.monitoring.v1",
        "state": "messages.state.v1",
        "lists": "messages.lists.v1",
        "control": "messages.control.v1",
    }
    assert next(iter(topics.names())) == topics.events


def test_topics_as_declared_have_no_differences() -> None:
    topics = Topics("x")
    assert list(differences(topics, as_declared(topics, 6))) == []


def test_retention_is_overridden_by_role() -> None:
    topics = Topics("x", {"decisions": 5 * DAY_MS})
    assert topics.names()[topics.decisions].settings["retention.ms"] == str(5 * DAY_MS)
    assert topics.names()[topics.approve].settings == DECLARED["approve"].settings


@pytest.mark.parametrize("role", ["control", "decision"])
def test_retention_of_what_has_none_is_refused(role: str) -> None:
    with pytest.raises(ConfigError, match=f"no topic {role}.*known are events, approve"):
        Topics("x", {role: 1})


def test_every_kind_of_difference_is_named() -> None:
    topics = Topics("x")
    found = as_declared(topics, 4)
    del found[topics.block]
    found[topics.review].partitions = 3
    found[topics.control].partitions = 4
    found[topics.events].settings["message.timestamp.type"] = "CreateTime"
    found[topics.late].settings["retention.ms"] = "1"
    told = {(finding.topic, finding.problem, finding.serious) for finding in differences(topics, found)}
    assert told == {
        (topics.block, "is missing", True),
        (topics.review, "has 3 partitions instead of 4, like x.events.v1", True),
        (topics.control, "has 4 partitions instead of 1, as declared", True),
        (topics.events, "has message.timestamp.type=CreateTime instead of LogAppendTime", True),
        (topics.late, f"has retention.ms=1 instead of {30 * DAY_MS}", False),
    }


async def test_the_embedded_broker_is_refused_with_the_reason(embedded: str, namespace: str) -> None:
    with pytest.raises(BusError, match=r"no topic administration.*embedded broker makes topics by itself"):
        await create_topics(embedded, Topics(namespace), partitions=4)


async def test_settings_that_the_embedded_broker_does_not_have_are_not_taken_for_right(embedded: str, namespace: str) -> None:
    topics = Topics(namespace)
    async with AIOKafkaProducer(bootstrap_servers=embedded) as producer:
        await producer.send_and_wait(topics.events, b"{}")
    with pytest.raises(BusError, match="no topic administration"):
        await check_topics(embedded, topics)


async def test_a_broker_that_is_not_there_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can serve there meanwhile
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(BusError, match=rf"no broker answers at {address}.*check --bootstrap"):
            await check_topics(address, Topics("x"))


@pytest.mark.kafka
async def test_created_topics_are_as_declared_and_creating_again_changes_nothing(kafka: str, namespace: str) -> None:
    topics = Topics(namespace)
    missing = await check_topics(kafka, topics)
    assert {finding.topic for finding in missing} == set(topics.names())
    assert await create_topics(kafka, topics, partitions=3) == dict.fromkeys(topics.names(), True)
    assert await check_topics(kafka, topics) == []
    assert await create_topics(kafka, topics, partitions=5) == dict.fromkeys(topics.names(), False)
    assert await check_topics(kafka, topics) == []


@pytest.mark.kafka
async def test_events_carry_the_brokers_time(kafka: str, namespace: str) -> None:
    topics = Topics(namespace)
    await create_topics(kafka, topics, partitions=1)
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await producer.send_and_wait(topics.events, b"{}", timestamp_ms=1)
    async with AIOKafkaConsumer(topics.events, bootstrap_servers=kafka, auto_offset_reset="earliest") as consumer:
        record = await consumer.getone()
    log_append_time = 1
    assert record.timestamp_type == log_append_time
    assert record.timestamp > 1


@pytest.mark.kafka
async def test_topics_that_somebody_else_made_are_told(kafka: str, namespace: str) -> None:
    topics = Topics(namespace)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(topics.events, 2, 1), NewTopic(topics.review, 3, 1)])
    await admin.close()
    told = {(finding.topic, finding.problem) for finding in await check_topics(kafka, topics)}
    assert (topics.events, "has message.timestamp.type=CreateTime instead of LogAppendTime") in told
    assert (topics.review, f"has 3 partitions instead of 2, like {topics.events}") in told
    assert (topics.block, "is missing") in told


@pytest.mark.kafka
async def test_a_refused_setting_is_told_in_the_brokers_words(kafka: str, namespace: str) -> None:
    with pytest.raises(BusError, match=r"refused to create.*replication factor"):
        await create_topics(kafka, Topics(namespace), partitions=1, replicas=9)
