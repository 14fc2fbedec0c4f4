"""The embedded broker: it serves, it ends, and its limits are the ones that its docstring names."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streamapp.bus.embedded import KEPT_BYTES_PER_PARTITION, PARTITIONS, EmbeddedBroker


def connects(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


async def test_a_record_comes_back_from_an_automatic_topic(embedded: str, namespace: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=embedded, acks="all", enable_idempotence=True) as producer:
        sent = await producer.send_and_wait(namespace, b"value", key=b"key", headers=[("h", b"1")])
        assert len(await producer.partitions_for(namespace)) == PARTITIONS
    async with AIOKafkaConsumer(namespace, bootstrap_servers=embedded, group_id=namespace, auto_offset_reset="earliest") as consumer:
        record = await consumer.getone()
    assert (record.key, record.value, record.partition, record.offset) == (b"key", b"value", sent.partition, sent.offset)


async def test_the_oldest_records_are_dropped_beyond_the_kept_bytes(fresh_embedded: str) -> None:
    size, total = 100_000, 2 * KEPT_BYTES_PER_PARTITION
    async with AIOKafkaProducer(bootstrap_servers=fresh_embedded) as producer:
        for _ in range(total // size):
            last = await producer.send_and_wait("t", bytes(size), partition=0)
    async with AIOKafkaConsumer(bootstrap_servers=fresh_embedded) as consumer:
        partition = TopicPartition("t", 0)
        consumer.assign([partition])
        first = (await consumer.beginning_offsets([partition]))[partition]
    kept = (last.offset - first + 1) * size
    assert first > 0
    assert KEPT_BYTES_PER_PARTITION - 2 * size < kept < KEPT_BYTES_PER_PARTITION + 2 * size


def test_close_ends_the_port_and_may_be_repeated() -> None:
    broker = EmbeddedBroker()
    assert connects(broker.address)
    broker.close()
    broker.close()
    assert not connects(broker.address)


def test_two_brokers_live_side_by_side(embedded: str, fresh_embedded: str) -> None:
    assert embedded != fresh_embedded
    assert connects(embedded) and connects(fresh_embedded)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "streamapp.bus.embedded", "--until-stdin-closes"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        yield child
        child.kill()


def first_line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_a_process_says_where_it_is_and_ends_on_sigterm(process: subprocess.Popen[str]) -> None:
    address = first_line(process)
    assert connects(address)
    process.terminate()
    assert process.wait(timeout=10) == 0
    assert not connects(address)
    assert process.stderr is not None and process.stderr.read() == ""


def test_a_process_ends_with_its_parents_pipe(process: subprocess.Popen[str]) -> None:
    address = first_line(process)
    assert connects(address)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=10) == 0
