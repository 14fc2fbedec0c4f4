"""The topics of one pipeline: their names, their declared settings, and creating and checking them on a broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, TopicAlreadyExistsError, for_code

from streamapp.bus.unreachable import unreachable
from streamapp.core.errors import BusError, ConfigError

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
#: Bytes of one produce batch: below the broker's default `message.max.bytes` (1,048,588) with room for the batch header.
BATCH_BYTES_MAX = 1_000_000
#: A dead letter is the event whole plus headers, so its topic takes twice what the broker takes by default.
DEAD_LETTER_BYTES_MAX = 2_097_152
REPLICAS = 3  # where the cluster has as many brokers


@dataclass(frozen=True, slots=True)
class Declared:
    """What one topic has to be: `partitions` None means as many as the events topic, so that numbers and keys carry over."""

    suffix: str
    partitions: int | None
    settings: Mapping[str, str]


def _kept(days: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(days * DAY_MS)}


DECLARED: Mapping[str, Declared] = {
    # The broker's clock, not the producer's, says when an event arrived: latency, lag in seconds and clock skew hang on it.
    "events": Declared("events.v1", None, _kept(7) | {"message.timestamp.type": "LogAppendTime"}),
    "approve": Declared("verdicts.approve.v1", None, _kept(7)),
    "review": Declared("verdicts.review.v1", None, _kept(7)),
    "block": Declared("verdicts.block.v1", None, _kept(7)),
    "decisions": Declared("decisions.v1", None, _kept(90)),  # training looks 90 days back
    "dead_letters": Declared("dead-letters.v1", None, _kept(30) | {"max.message.bytes": str(DEAD_LETTER_BYTES_MAX)}),
    "late": Declared("late.v1", None, _kept(30)),
    "labels": Declared("labels.v1", None, _kept(365)),  # truth comes late and is corrected later still
    # The journal: unlimited here, because it is trimmed behind its own snapshots; compaction would eat deltas.
    "state": Declared("state.v1", None, {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}),
    # Partials of all workers are merged by one reader, in order.
    "monitoring": Declared("monitoring.v1", 1, _kept(30)),
    # Read whole by every worker: one partition for one order, compacted so that the last word on each key stays.
    # As control; what was replaced or taken away stays for a week, so that the lists of any moment of it can be put together again.
    "lists": Declared(
        "lists.v1",
        1,
        {"cleanup.policy": "compact", "delete.retention.ms": str(7 * DAY_MS), "min.compaction.lag.ms": str(7 * DAY_MS)},
    ),
    "control": Declared("control.v1", 1, {"cleanup.policy": "compact", "delete.retention.ms": str(7 * DAY_MS)}),
}
#: Settings that change what the system promises; any other difference is the operator's choice and only reported.
PROMISED = frozenset({"cleanup.policy", "message.timestamp.type", "max.message.bytes", "retention.bytes"})

#: Topics of which it may be said how long they are kept; the journal is not among them.
_RETAINED = frozenset(role for role, declared in DECLARED.items() if "retention.ms" in declared.settings and role != "state")


class Topics:
    """Names of the topics of namespace `ns`; `retention_ms` by role overrides how long one is kept (-1: for ever).

    `events` is the name of an events topic that was there before us; empty: it is named like the others.
    """

    def __init__(self, ns: str, retention_ms: Mapping[str, int] | None = None, events: str = "") -> None:
        self.ns, self._events = ns, events
        self.retention_ms = dict(retention_ms or {})
        for role in self.retention_ms:
            if role not in _RETAINED:
                kept = ", ".join(role for role in DECLARED if role in _RETAINED)
                raise ConfigError(f"no topic {role} whose retention could be set", f"known are {kept}")
        self.events, self.approve, self.review = self._name("events"), self._name("approve"), self._name("review")
        self.block, self.decisions, self.dead_letters = self._name("block"), self._name("decisions"), self._name("dead_letters")
        self.late, self.labels = self._name("late"), self._name("labels")
        self.monitoring, self.control = self._name("monitoring"), self._name("control")
        self.state, self.lists = self._name("state"), self._name("lists")

    def outputs(self) -> tuple[str, ...]:
        """Gives the topics that answer events, in the order in which the journal notes their offsets: new ones go to the end."""
        return self.approve, self.review, self.block, self.decisions, self.dead_letters

    def _name(self, role: str) -> str:
        return self._events if role == "events" and self._events else f"{self.ns}.{DECLARED[role].suffix}"

    def names(self) -> dict[str, Declared]:
        """Gives every topic name with what it has to be, the events topic first."""
        return {self._name(role): self._declared(role) for role in DECLARED}

    def _declared(self, role: str) -> Declared:
        declared = DECLARED[role]
        if role not in self.retention_ms:
            return declared
        settings = dict(declared.settings) | {"retention.ms": str(self.retention_ms[role])}
        return Declared(declared.suffix, declared.partitions, settings)


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which a topic is not as declared; `serious` when a promise of the system hangs on it."""

    topic: str
    problem: str
    fix: str
    serious: bool = True


@dataclass(slots=True)
class Found:
    """A topic as the broker has it; `settings` is empty where the broker does not tell them."""

    partitions: int
    settings: dict[str, str] = field(default_factory=dict)


async def create_topics(
    bootstrap: str,
    topics: Topics,
    *,
    partitions: int,
    replicas: int | None = None,
    client: Mapping[str, Any] | None = None,
) -> dict[str, bool]:
    """Creates the topics that are missing; gives every name with whether it was created now (False: it was there, unchanged).

    Takes the partition count of the events topic and of all that follow it, the replica count (None: 3, or as many as there are
    brokers) and aiokafka client arguments. Raises BusError when the broker cannot be reached or refuses one.
    """
    async with _administration(bootstrap, client) as admin:
        cluster = await admin.describe_cluster()
        if cluster["controller_id"] not in {broker["node_id"] for broker in cluster["brokers"]}:
            raise IncompatibleBrokerVersion("the cluster has no controller")
        if replicas is None:
            replicas = min(REPLICAS, len(cluster["brokers"]))
        # With acks=all this is what a verdict survives: one replica may be down without stopping the line or losing anything.
        in_sync = {"min.insync.replicas": str(max(1, replicas - 1))}
        wanted = [
            NewTopic(name, declared.partitions or partitions, replicas, topic_configs=dict(declared.settings) | in_sync)
            for name, declared in topics.names().items()
        ]
        answer = await admin.create_topics(wanted)
        created = {}
        for name, code, message in answer.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise BusError(f"the broker refused to create {name}: {message or error.description or error.__name__}", _permission(error))
            created[name] = code == 0
        return created


async def delete_topics(bootstrap: str, topics: Topics, *, client: Mapping[str, Any] | None = None) -> None:
    """Deletes those of the topics that exist, with all they hold. Raises BusError when the broker cannot be reached."""
    async with _administration(bootstrap, client) as admin:
        present = set(await admin.list_topics()) & set(topics.names())
        await admin.delete_topics(sorted(present))


async def check_topics(bootstrap: str, topics: Topics, *, client: Mapping[str, Any] | None = None) -> list[Finding]:
    """Compares the broker's topics with the declared ones; gives the differences, none when all is as it has to be. Raises BusError."""
    async with _administration(bootstrap, client) as admin:
        found = await _found(admin, topics)
    return list(differences(topics, found))


def differences(topics: Topics, found: Mapping[str, Found]) -> Sequence[Finding]:
    """Takes the declared topics and what was found of them by name; gives every difference with its way out."""
    findings = []
    events = found.get(topics.events)
    for name, declared in topics.names().items():
        topic = found.get(name)
        if topic is None:
            findings.append(Finding(name, "is missing", "create it: streamapp topics create"))
            continue
        wanted = declared.partitions or (events.partitions if events else topic.partitions)
        if topic.partitions != wanted:
            like = "as declared" if declared.partitions else f"like {topics.events}"
            fix = "recreate it; partitions that were added or removed move keys, and numbers no longer carry over"
            findings.append(Finding(name, f"has {topic.partitions} partitions instead of {wanted}, {like}", fix))
        for key, value in declared.settings.items():
            present = topic.settings.get(key)
            if present is not None and present != value:
                fix = f"kafka-configs --alter --entity-type topics --entity-name {name} --add-config {key}={value}"
                findings.append(Finding(name, f"has {key}={present} instead of {value}", fix, serious=key in PROMISED))
    return findings


async def _found(admin: AIOKafkaAdminClient, topics: Topics) -> dict[str, Found]:
    # Asking for all and choosing here: asking for one that is missing would create it where brokers do that by themselves.
    present = {topic["topic"]: topic for topic in await admin.describe_topics() if topic["topic"] in topics.names()}
    found = {name: Found(len(topic["partitions"])) for name, topic in present.items()}
    if not found:
        return found
    for answer in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in found]):
        for code, message, _, name, entries in answer.resources:
            if code:
                error = for_code(code)
                raise BusError(f"the broker does not tell the settings of {name}: {message or error.__name__}", _permission(error))
            found[name].settings = {entry[0]: entry[1] for entry in entries}
    return found


def _permission(error: type[KafkaError]) -> str:
    if error.__name__.endswith("AuthorizationFailedError"):
        return "Give this user the rights that docs/guides/operations.md lists, or let an administrator create the topics"
    return "Its own log says more"


@asynccontextmanager
async def _administration(bootstrap: str, client: Mapping[str, Any] | None) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **(client or {}))
    try:
        await admin.start()
        yield admin
    except IncompatibleBrokerVersion as refused:
        fix = "The embedded broker makes topics by itself, always with four partitions and no settings; any other needs Apache Kafka"
        raise BusError(f"the broker at {bootstrap} has no topic administration", fix) from refused
    except (KafkaError, OSError, TimeoutError) as failed:
        raise await unreachable(bootstrap, client, failed) from failed
    finally:
        await admin.close()
