"""Whether a broker can be reached and what this user may do there, found out without changing anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaClient, AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError, IncompatibleBrokerVersion, KafkaError, TopicAuthorizationFailedError
from aiokafka.structs import TopicPartition

from streamapp.bus.topics import Topics
from streamapp.bus.unreachable import unreachable
from streamapp.core.errors import BusError


@dataclass(frozen=True, slots=True)
class Reached:
    """What was found: how fast it answers, how many brokers there are, whether topics can be administered, and what was refused."""

    answer_ms: float
    brokers: int
    administrable: bool
    refused: tuple[str, ...]


async def reach(bootstrap: str, group: str, topics: Topics, client: Mapping[str, Any] | None, wait_s: float) -> Reached:
    """Asks for metadata, the group's position and the end of each topic. Raises BusError when nothing answers within `wait_s`."""
    began = time.monotonic()
    connection = AIOKafkaClient(bootstrap_servers=bootstrap, **(client or {}))
    try:
        await asyncio.wait_for(connection.bootstrap(), wait_s)
        answer_ms = (time.monotonic() - began) * 1000
        brokers = len(connection.cluster.brokers())
        present = set(connection.cluster.topics(exclude_internal_topics=False)) & set(topics.names())
    except (KafkaError, OSError, TimeoutError) as failed:
        raise await unreachable(bootstrap, client, failed) from failed
    finally:
        await connection.close()
    administrable = await _administrable(bootstrap, client)
    refused = await _refused(bootstrap, group, topics, sorted(present), client) if administrable else ()
    return Reached(answer_ms, brokers, administrable, tuple(refused))


async def _administrable(bootstrap: str, client: Mapping[str, Any] | None) -> bool:
    """A cluster without a controller, such as the embedded one, has nobody who could create or describe a topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **(client or {}))
    try:
        await admin.start()
        cluster = await admin.describe_cluster()
        return cluster["controller_id"] in {broker["node_id"] for broker in cluster["brokers"]}
    except IncompatibleBrokerVersion:
        return False
    except KafkaError as failed:
        raise BusError(f"the broker at {bootstrap} refuses administration: {failed}", "check this user's rights") from failed
    finally:
        await admin.close()


async def _refused(bootstrap: str, group: str, topics: Topics, present: list[str], client: Mapping[str, Any] | None) -> list[str]:
    refused: list[str] = []
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False, **(client or {}))
    try:
        await consumer.start()
        for name in present:
            try:
                await consumer.end_offsets([TopicPartition(name, 0)])
            except TopicAuthorizationFailedError:
                refused.append(f"topic {name} cannot be read")
        if topics.events in present:
            await consumer.committed(TopicPartition(topics.events, 0))
    except GroupAuthorizationFailedError:
        refused.append(f"group {group} cannot be joined")
    except KafkaError as failed:
        refused.append(f"group {group}: {failed!r}")
    finally:
        await consumer.stop()
    return refused
