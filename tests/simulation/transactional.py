"""The transactional producers of a simulated worker: the program's own, and aiokafka's under it, with a client that has no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from aiokafka.errors import KafkaConnectionError, NotEnoughReplicasAfterAppendError, RecordListTooLargeError

from streamapp.bus import producer, statelog
from streamapp.bus.producer import Producer
from tests.simulation.broker import LogConsumer
from tests.simulation.loop import MIND
from tests.simulation.transactions import Answer, answer_to

_NODE = 0


class _Cluster:
    """Stands in for aiokafka's metadata: one node, and every topic has all partitions."""

    def __init__(self, partitions: int) -> None:
        self._partitions = set(range(partitions))

    def partitions_for_topic(self, topic: str) -> set[int]:
        """Gives the partitions of a topic."""
        return self._partitions

    def leader_for_partition(self, place: Any) -> int:
        """Gives the only node."""
        return _NODE


class _Client:
    """Stands in for AIOKafkaClient: carries requests to the broker; connections break where the weather is such."""

    def __init__(self) -> None:
        self._mind: Any = MIND.get()
        self._world = self._mind.world
        self.cluster = _Cluster(self._world.scenario.partitions)
        self._conns: dict[Any, Any] = {}
        self._client_id = self._mind.name

    async def bootstrap(self) -> None:
        """Connects."""
        await self._world.network.ask(lambda: None)

    async def close(self) -> None:
        """Disconnects."""

    async def coordinator_lookup(self, kind: Any, name: str) -> int:
        """Gives the node of a coordinator."""
        await self._world.network.ask(lambda: None)
        return _NODE

    async def ready(self, node: int, group: Any = None) -> bool:
        """Connects to a node."""
        return True

    async def _wait_on_metadata(self, topic: str) -> set[int]:
        await self._world.network.ask(lambda: None)
        return self.cluster.partitions_for_topic(topic)

    async def _maybe_wait_metadata(self) -> None:
        pass

    def force_metadata_update(self) -> asyncio.Future[None]:
        """Asks for what is known."""
        known: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        known.set_result(None)
        return known

    async def send(self, node: int, request: Any, *, group: Any = None) -> Any:
        """Gives the answer. Raises KafkaConnectionError where request or answer is lost."""
        network, mind, sent_s = self._world.network, self._mind, self._world.network.loop.now_s

        def at_the_broker() -> Any:
            chance = network.random.random()
            if (mind.dead and chance < 0.5) or chance < network.weather.lost / 2:
                raise KafkaConnectionError
            answer = self._produced(request, sent_s) if request.API_KEY == 0 else answer_to(self._world.transactions, mind, sent_s, request)
            if chance < network.weather.lost:
                raise KafkaConnectionError
            return answer

        return await network.ask(at_the_broker)

    def _produced(self, request: Any, sent_s: float) -> Answer:
        """Takes a produce request; a batch of it may be refused for good, taken and denied, or told without its offset."""
        network = self._world.network
        weather, chance = network.weather, network.random.random()
        if chance < weather.refuse:
            self._mind.excuse()
            topics = [
                (topic, [(number, RecordListTooLargeError.errno, -1, -1, 0) for number, _ in some]) for topic, some in request._topics
            ]
            return Answer(topics=topics)
        answer = answer_to(self._world.transactions, self._mind, sent_s, request)
        chance -= weather.refuse
        if chance < weather.forget + weather.repeated:
            denied = NotEnoughReplicasAfterAppendError.errno if chance < weather.forget else 0
            answer.topics = [(topic, [(told[0], told[1] or denied, -1, -1, 0) for told in some]) for topic, some in answer.topics]
        return answer


class SimulatedProducer(Producer):
    """The program's producer on such a client. A process that is killed leaves it as it is."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.client = self._sender.client = _Client()
        self._metadata = self._message_accumulator._cluster = self.client.cluster

    def __del__(self) -> None:
        pass


@contextmanager
def without_sockets() -> Iterator[None]:
    """Lets workers connect to nothing for a while."""
    with patch.object(producer, "Producer", SimulatedProducer), patch.object(statelog, "AIOKafkaConsumer", LogConsumer):
        yield
