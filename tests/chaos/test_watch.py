"""The watch of chaos sees everything that topics hold, whatever its clients do, and says where it is when it does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from chaos.bus import Administration, Stuck, await_true, topics_of
from chaos.follow import Settings, ends
from chaos.watch import Watch

WAIT_S = 20.0


class Deaf(Consumer):
    """Gives nothing of partition 2, as librdkafka sometimes does after a broker was away."""

    def consume(self, *arguments: Any) -> list[Any]:
        return [message for message in super().consume(*arguments) if message.partition() != 2]


class Clients:
    """The first client of a watch is deaf, those after it are not."""

    def __init__(self) -> None:
        self.opened = 0

    def __call__(self, settings: Settings) -> Consumer:
        self.opened += 1
        return (Deaf if self.opened == 1 else Consumer)(settings)


def write(bootstrap: str, topic: str, count: int, **headers: bytes) -> None:
    """Writes `count` records to each of four partitions."""
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 3})
    for number in range(4 * count):
        producer.produce(topic, key=b"u", value=b"%d" % number, partition=number % 4, headers=list(headers.items()))
    assert producer.flush(WAIT_S) == 0


@pytest.fixture
def events(namespace: str) -> str:
    return f"{namespace}.events.v1"


def test_a_client_that_stands_still_with_one_partition_is_replaced_and_nothing_is_missing(
    embedded: str, events: str, namespace: str
) -> None:
    clients = Clients()
    write(embedded, events, 10)
    with Watch(embedded, events, topics_of(namespace), client=clients, stall_s=0.3) as watch:
        await_true(lambda: len(watch.inputs) == 40, "all is seen", WAIT_S)
        assert (watch.replaced, clients.opened) == (1, 2)
        write(embedded, events, 5)
        await_true(lambda: len(watch.inputs) == 60, "all is seen", WAIT_S)
    assert watch.read_again == 0


def test_a_client_that_has_nothing_to_read_is_left_alone(embedded: str, events: str, namespace: str) -> None:
    write(embedded, events, 1)
    looked: list[None] = []

    class Counted(Consumer):
        def consume(self, *arguments: Any) -> list[Any]:
            looked.append(None)
            return super().consume(*arguments)

    with Watch(embedded, events, topics_of(namespace), client=Counted, stall_s=0.1) as watch:
        await_true(lambda: len(looked) > 20, "it reads on for ten times as long as it may stand still", WAIT_S)
        assert (len(watch.inputs), watch.replaced) == (4, 0)


def test_a_second_look_reads_what_the_watch_was_not_given(embedded: str, events: str, namespace: str) -> None:
    write(embedded, events, 3)
    with Watch(embedded, events, topics_of(namespace), client=Deaf) as watch:
        await_true(lambda: len(watch.inputs) == 9, "all but one partition is seen", WAIT_S)
        assert watch.look_again() == 3
        assert len(watch.inputs) == 12


def test_who_waits_for_the_watch_in_vain_is_told_where_it_is(embedded: str, events: str, namespace: str) -> None:
    write(embedded, events, 2)
    with Watch(embedded, events, topics_of(namespace)) as watch:
        watch.read_to({(events, 0): 2, (events, 3): 2}, WAIT_S)
        with pytest.raises(Stuck, match=rf"{events}-1 at 2 of 7; not within 0.1 s"):
            watch.read_to({(events, 0): 2, (events, 1): 7}, 0.1)


@pytest.fixture
def admin(kafka: str, namespace: str, events: str) -> Iterator[Administration]:
    one = Administration(kafka)
    one.create(events, *topics_of(namespace).values())
    yield one
    one.delete(events, *topics_of(namespace).values())


@pytest.mark.kafka
def test_a_sealed_topic_takes_nothing_more_and_tells_where_it_ends(kafka: str, admin: Administration, namespace: str, events: str) -> None:
    block = topics_of(namespace)["block"]
    write(kafka, block, 5, **{"source-offset": b"0"})
    with Watch(kafka, events, topics_of(namespace)) as watch:
        found = admin.seal(block)
        refused: list[int] = []
        producer = Producer({"bootstrap.servers": kafka, "log_level": 0})
        for number in range(4):
            producer.produce(block, b"x", partition=number, on_delivery=lambda error, _: refused.append(error.code()))
        producer.flush(WAIT_S)
        assert refused == [KafkaError.MSG_SIZE_TOO_LARGE] * 4
        assert ends(kafka, found) == found
        watch.read_to(found, WAIT_S)
        await_true(lambda: sum(map(len, watch.answers.values())) == 20, "what was in it is seen, and no probe", WAIT_S)


@pytest.mark.kafka
def test_a_topic_made_anew_is_read_from_its_first_record(kafka: str, admin: Administration, namespace: str, events: str) -> None:
    block = topics_of(namespace)["block"]
    write(kafka, block, 3, **{"source-offset": b"0"})
    with Watch(kafka, events, topics_of(namespace)) as watch:
        await_true(lambda: watch.kept == 12, "the old one is read", WAIT_S)
        admin.delete(block)
        admin.create(block)
        write(kafka, block, 8, **{"source-offset": b"1"})
        watch.begin_again(block)
        wanted = {(number, source): count for number in range(4) for source, count in ((0, 3), (1, 8))}
        await_true(lambda: {place: len(given) for place, given in watch.answers.items()} == wanted, "the new one is read", WAIT_S)
        assert watch.replaced == 0


@pytest.mark.kafka
def test_marks_of_transactions_do_not_look_like_records_that_are_missing(
    kafka: str, admin: Administration, namespace: str, events: str
) -> None:
    block = topics_of(namespace)["block"]
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": namespace, "log_level": 0})
    producer.init_transactions(WAIT_S)
    with Watch(kafka, events, topics_of(namespace), stall_s=0.2) as watch:
        for number in range(4):
            producer.begin_transaction()
            producer.produce(block, b"x", partition=number, headers=[("source-offset", b"0")])
            (producer.abort_transaction if number == 3 else producer.commit_transaction)(WAIT_S)
        watch.read_to(ends(kafka, [(block, number) for number in range(4)]), WAIT_S)
        await_true(lambda: watch.kept == 3, "what was committed is seen", WAIT_S)
        producer.begin_transaction()
        producer.produce(block, b"open", partition=0, headers=[("source-offset", b"1")])
        producer.flush(WAIT_S)
        with pytest.raises(Stuck):
            watch.read_to({(block, 0): 4}, 1.0)  # several looks long
        assert (watch.kept, watch.replaced) == (3, 0)
        producer.abort_transaction(WAIT_S)


@pytest.mark.kafka
def test_a_deleted_topic_hides_no_other_ends(kafka: str, admin: Administration, namespace: str, events: str) -> None:
    write(kafka, events, 1)
    with pytest.raises(KafkaException):
        admin.delete(f"{namespace}.never")
    found = ends(kafka, [(events, 0), (f"{namespace}.never", 0)])
    assert found == {(events, 0): 1}
