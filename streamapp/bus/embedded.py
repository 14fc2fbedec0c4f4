"""The embedded broker: librdkafka's mock cluster, which speaks Kafka's protocol on loopback without Java or a download.

It is for the demo, for trying things out and for tests, and it is no Kafka. What it keeps to itself:

- It lives in memory and in this process; a restart loses every record, group and offset.
- It keeps about 5 MiB per partition and drops the oldest records beyond that (some 70,000 events of 286 bytes over four
  partitions): a feeder must watch the lag of its consumers, or they jump over what was dropped.
- A topic appears with four partitions when it is first named; creating, describing or configuring topics is refused, so that
  settings such as LogAppendTime, retention and compaction do not exist.
- PLAINTEXT only; the port is chosen by the operating system; one broker.
- Transactions are answered but isolate nothing.
- Group sessions end after at most 6 s, whatever the client asks for.

A claim about backlog, restart, transactions, retention or administration is therefore made on Apache Kafka (`ops/kafka/kafka`).
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException, Producer

from streamapp.core.errors import BusError

PARTITIONS = 4  #                   what the mock cluster gives every topic; not settable through this binding
KEPT_BYTES_PER_PARTITION = 5 << 20
_ONLY_ERRORS = 3  #                 syslog severity; the cluster announces itself at 5 and would write to stderr
_START_TIMEOUT_S = 10.0


class EmbeddedBroker:
    """A broker that serves from construction until `close`; `address` is its HOST:PORT. Raises BusError when it cannot start."""

    address: str

    def __init__(self) -> None:
        # The cluster belongs to a client instance: it starts with it and ends when librdkafka destroys it.
        self._owner: Producer | None = Producer({"test.mock.num.brokers": 1, "log_level": _ONLY_ERRORS})
        try:
            brokers = self._owner.list_topics(timeout=_START_TIMEOUT_S).brokers
        except KafkaException as error:
            self._owner = None
            raise BusError(f"the embedded broker did not start: {error}", "Is a listening socket on 127.0.0.1 allowed here?") from error
        (broker,) = brokers.values()
        self.address = f"{broker.host}:{broker.port}"

    def close(self) -> None:
        """Ends the broker and closes its port; everything that it kept is gone. Calling it again does nothing."""
        self._owner = None  # the last reference: librdkafka destroys the instance and with it the cluster

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def serve(announce: Callable[[str], None], stop: threading.Event) -> None:
    """Takes where to tell the address and the event that ends it; runs a broker from one to the other."""
    with EmbeddedBroker() as broker:
        announce(broker.address)
        stop.wait()


def run(*, until_stdin_closes: bool = False) -> None:
    """Runs a broker in this process: HOST:PORT is the first line on stdout; SIGTERM, SIGINT and SIGHUP end it.

    With `until_stdin_closes` the end of standard input ends it too, so that it never outlives a parent that holds the pipe,
    not even one that was killed. Must be called on the main thread (signals).
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    if until_stdin_closes:
        threading.Thread(target=_set_at_end_of_input, args=(stop,), daemon=True).start()
    serve(lambda address: print(address, flush=True), stop)


def _set_at_end_of_input(stop: threading.Event) -> None:
    # Not through sys.stdin: a thread blocked there holds its lock, and the interpreter aborts when it ends meanwhile.
    while os.read(0, 4096):
        pass  # what is written to us has no meaning; only its end has
    stop.set()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m streamapp.bus.embedded", description="An in-memory broker for trying things out.")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process that holds our standard input")
    run(until_stdin_closes=parser.parse_args(arguments).until_stdin_closes)


if __name__ == "__main__":
    main()
