"""Every kind of fault by name: what it does, on which broker and pipeline, and what it may leave behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from chaos import faults, faults_redis
from chaos.processes import Node, Redis
from chaos.proxy import SlowRelay

STEPS = ("decided", "emitted", "acknowledged", "logged", "acked")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault. `repeats`: a verdict may come twice as long as both say the same. `textbook`: asked of that app as well."""

    about: str
    round: faults.Round | None = None
    on_node: Callable[[Node], faults.Round] | None = None  #    needs the broker's process
    on_redis: Callable[[Redis, SlowRelay], faults.Round] | None = None  # needs a Redis of its own, and `payments`
    repeats: bool = False
    embedded: bool = False
    textbook: bool = False
    shares: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


#: A restart is no outage, however slow the machine is that starts the broker.
_PATIENT = {"STREAMAPP_KAFKA_REQUEST_TIMEOUT_MS": "120000"}
_IMPATIENT = {"STREAMAPP_KAFKA_REQUEST_TIMEOUT_MS": "4000"}

KINDS: Mapping[str, Kind] = {
    **{f"kill-{step}": Kind(f"kill -9 when step `{step}` is done", faults.killed_at(step)) for step in STEPS},
    "kill": Kind("kill -9 at a random moment under load", faults.killed),
    "zombie": Kind("SIGSTOP past the session's end, then SIGCONT", faults.zombie, repeats=True),
    "sigterm": Kind("SIGTERM under load; nothing is left uncommitted", faults.terminated),
    "scale": Kind("1, 3, 1 workers under load, leaving by SIGTERM or kill -9", faults.scaled),
    "loading": Kind("workers come and go while state loads", faults.unsettled),
    "poison": Kind("40 % garbage between good events, and kill -9", faults.killed, shares={"poison": 0.4}),
    "oversized": Kind("verdicts that no topic takes, and kill -9", faults.killed, shares={"memo": 0.02}),
    "output-refused": Kind("a topic takes no verdict of its size", faults.output_refused),
    # What was in the topic cannot be looked up any more.
    "output-deleted": Kind("a verdict topic is deleted", faults.output_deleted, repeats=True, environment=_IMPATIENT),
    "broker-restart": Kind("the broker is stopped, or killed, and started again", on_node=faults.broker_restarted, environment=_PATIENT),
    "broker-away": Kind("the broker is away for longer than workers wait", on_node=faults.broker_away, environment=_IMPATIENT),
    "redis-killed": Kind("Redis is killed and comes back empty", on_redis=faults_redis.redis_killed),
    "redis-hung": Kind("Redis takes connections and does not answer", on_redis=faults_redis.redis_hung),
    "redis-slow": Kind("Redis answers after six deadlines", on_redis=faults_redis.redis_slow),
    "embedded-kill": Kind("kill -9 on the embedded broker", faults.killed, embedded=True),
    "embedded-sigterm": Kind("SIGTERM on the embedded broker", faults.terminated, embedded=True),
    "textbook-kill": Kind("kill -9, the textbook app", faults.killed, textbook=True),
    "textbook-zombie": Kind("SIGSTOP, SIGCONT, the textbook app", faults.zombie, textbook=True),
    "textbook-sigterm": Kind("SIGTERM, the textbook app", faults.terminated, textbook=True),
}
