"""What is done to workers and their broker in one round; each gives the seconds until every partition was served again, or None."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from chaos.arena import SETTLE_S, Arena
from chaos.bus import Stuck, await_true
from chaos.processes import KILLED, Node, Process

Round = Callable[[Arena], float | None]
RATE, BURST = 160, 300
FAIL_POINT_CODE = 137
TRIES = 8
#: What workers write: before they join their group, and when a rebalance meets them loading.
STARTED, CUT_SHORT = "Metrics and health on", "was taken away while its state was loading"
#: What they write when the broker tells them that their session has ended.
FORGOTTEN = "member_id was not recognized"


def now_ms() -> int:
    """Gives the epoch ms: what verdicts are stamped with on this machine."""
    return time.time_ns() // 1_000_000


def killed_at(step: str) -> Round:
    """A worker ends as if by kill -9 when a numbered step is done for the n-th time; another lives on or is started."""

    def one(arena: Arena) -> float:
        alone = arena.rng.random() < 0.4
        arena.keep(0 if alone else 1)
        with arena.feed.load(RATE, BURST):
            victim = arena.start(STREAMAPP_TEST_FAIL_AT=f"{step}:{arena.rng.randint(1, 12)}")
            arena.forget(victim)
            if (code := victim.wait(SETTLE_S)) != FAIL_POINT_CODE:
                raise Stuck(f"{victim.log.name} ended with {code} instead of at its fail point: {victim.last_words()}")
            since_ms = now_ms()
            arena.keep(1)
            took_s = arena.recovered(since_ms)
        arena.settle()
        return took_s

    return one


def killed(arena: Arena) -> float:
    """kill -9 at a random moment under load."""
    arena.keep(arena.rng.choice([1, 2]) if arena.setup.real else 1)
    with arena.feed.load(RATE, BURST):
        arena.steady()
        time.sleep(arena.rng.uniform(0, 0.7))
        victim = arena.rng.choice(arena.workers)
        arena.forget(victim)
        since_ms = now_ms()
        victim.kill()
        arena.keep(1)
        took_s = arena.recovered(since_ms)
    arena.settle()
    return took_s


def zombie(arena: Arena) -> float:
    """SIGSTOP past the session's end, so that another worker takes over; then SIGCONT, with work of the old generation in its hands."""
    arena.keep(2)
    with arena.feed.load(RATE, BURST):
        arena.steady()
        time.sleep(arena.rng.uniform(0, 0.5))
        arena.feed.send(BURST)
        sleeper = arena.rng.choice(arena.workers)
        since_ms = sleeper.signal(signal.SIGSTOP)
        try:
            took_s = arena.recovered(since_ms)
        finally:
            sleeper.signal(signal.SIGCONT)
        await_true(lambda: not sleeper.running or arena.admin.members(arena.group) == 2, "the zombie joins or ends", SETTLE_S, every_s=0.1)
        if not sleeper.running:
            _ended_loudly(arena, sleeper)
        arena.keep(2)
        arena.steady()
    arena.settle(1.5)
    return took_s


def terminated(arena: Arena) -> float:
    """SIGTERM under load: what is committed is what the journal says and what is answered, no more and no less."""
    arena.keep(arena.rng.choice([1, 2]) if arena.setup.real else 1)
    with arena.feed.load(RATE, BURST):
        arena.steady()
        arena.feed.send(BURST)
        time.sleep(arena.rng.uniform(0, 0.3))
        arena.keep(0)
        if not arena.setup.textbook:
            _nothing_uncommitted(arena)
        since_ms = now_ms()
        arena.keep(1)
        took_s = arena.recovered(since_ms)
    arena.settle()
    return took_s


def _nothing_uncommitted(arena: Arena) -> None:
    positions = arena.state()
    if arena.setup.real:
        committed = arena.admin.committed(arena.group, arena.events)
        if committed != positions:
            raise Stuck(f"after SIGTERM the group has {committed} and the journal {positions}")
    await_true(lambda: time.monotonic() - arena.watch.last_answer_s > 0.5, "what was written is read", 10)
    answered = dict.fromkeys(positions, -1)
    for partition, offset in list(arena.watch.answers):
        answered[partition] = max(answered[partition], offset)
    beyond = {number: after for number, after in answered.items() if after >= positions[number]}
    if beyond:
        raise Stuck(f"after SIGTERM the journal says {positions}, and offsets {beyond} are answered beyond it")


def scaled(arena: Arena) -> float:
    """1 -> 3 -> 1 workers under load; half of the times the two go by kill -9 instead of SIGTERM."""
    arena.keep(1)
    hard = arena.rng.random() < 0.5
    with arena.feed.load(RATE, BURST):
        arena.steady()
        arena.keep(3)
        arena.steady()
        since_ms = now_ms()
        for leaving in arena.rng.sample(arena.workers, 2):
            if hard:
                arena.forget(leaving)
                leaving.kill()
            else:
                arena.dismiss(leaving)
        took_s = arena.recovered(since_ms)
        arena.shared_by(1)
    arena.settle()
    return took_s


def unsettled(arena: Arena) -> float:
    """Workers come and go until a rebalance has taken a partition away from one that was still loading it, three at least."""
    arena.keep(2)
    cut_before = arena.said(CUT_SHORT)
    with arena.feed.load(RATE, BURST):
        since_ms = now_ms()
        for attempt in range(TRIES):
            if attempt >= 2 and arena.said(CUT_SHORT) > cut_before:
                break
            newcomer = arena.start(STREAMAPP_STATE_SNAPSHOT_ROWS="9999999")
            await_true(lambda one=newcomer: STARTED in one.log.read_text(), "a newcomer starts", SETTLE_S, arena.check)  # type: ignore[misc]
            time.sleep(arena.rng.uniform(0, 1.5))
            leaving = next(worker for worker in arena.workers if worker is not newcomer)
            if arena.rng.random() < 0.3:
                arena.forget(leaving)
                leaving.kill()
            else:
                arena.dismiss(leaving)
        took_s = arena.recovered(since_ms)
    arena.settle()
    arena.notes["loads cut short"] += arena.said(CUT_SHORT) - cut_before
    return took_s


def broker_restarted(node: Node) -> Round:
    """The broker stops (in order, or by kill -9) under load and comes back; the workers live through it.

    Where it takes so long that it ends their sessions, a worker that is still sending is one that woke up late.
    """

    def one(arena: Arena) -> float:
        arena.keep(arena.rng.choice([1, 2]))
        forgotten_before = arena.said(FORGOTTEN)
        with arena.feed.load(RATE, BURST):
            arena.steady()
            (node.kill if arena.rng.random() < 0.5 else node.stop)()
            node.start()
            took_s = arena.recovered(now_ms())
        arena.settle()
        if arena.said(FORGOTTEN) > forgotten_before:
            arena.woke_late("rounds in which sessions ended while the broker was away")
        return took_s

    return one


def broker_away(node: Node) -> Round:
    """The broker is away for longer than a worker waits: it ends with a code that is not 0, and the next one goes on."""

    def one(arena: Arena) -> float:
        arena.keep(1)
        with arena.feed.load(RATE, BURST):
            arena.steady()
            node.stop()
            try:
                _ends_loudly(arena)
            finally:
                node.start()
            since_ms = now_ms()
            arena.keep(1)
            took_s = arena.recovered(since_ms)
        arena.settle()
        return took_s

    return one


def _ends_loudly(arena: Arena) -> None:
    (worker,) = arena.workers
    worker.wait(SETTLE_S)
    _ended_loudly(arena, worker)


def _ended_loudly(arena: Arena, worker: Process) -> None:
    arena.forget(worker)
    if (code := worker.wait(SETTLE_S)) in (0, KILLED):
        raise Stuck(f"{worker.log.name} ended with {code}, as if all were well")


def output_refused(arena: Arena) -> float:
    """A verdict topic takes only tiny messages: the worker ends un-acked with its reason; once the topic is mended, the next goes on."""
    topic = arena.outputs[arena.rng.choice(["review", "decisions"])]
    arena.keep(1)
    with arena.feed.load(RATE, BURST):
        arena.steady()
        arena.admin.limit(topic, 300)
        try:
            _ends_loudly(arena)
        finally:
            arena.admin.limit(topic, None)
        since_ms = now_ms()
        arena.keep(1)
        took_s = arena.recovered(since_ms)
    arena.settle()
    return took_s


def _stands_between_transactions(arena: Arena, worker: Process, topic: str) -> bool:
    """Says whether a worker that stands still has no transaction open on a topic; where it has, it goes on for a moment first."""
    if not arena.admin.undecided(topic):
        return True
    worker.signal(signal.SIGCONT)
    time.sleep(arena.rng.uniform(0.01, 0.05))
    worker.signal(signal.SIGSTOP)
    time.sleep(0.05)  # what is on its way arrives
    return False


def output_deleted(arena: Arena) -> float:
    """A verdict topic is deleted: the worker ends un-acked; once there is one again, the next goes on. What the old one held counts.

    Nobody can read later what a worker writes between the last look and the end of the topic. So it stands still for that moment, with
    micro-batches in its hands, and the topic takes nothing more, until the watch has read all that is in it. Exactly once, that is a moment
    in which no transaction is open there: Kafka commits one without what it held of a topic that is gone.
    """
    topic = arena.outputs["block"]
    arena.keep(1)
    with arena.feed.load(RATE, BURST):
        arena.steady()
        (worker,) = arena.workers
        worker.signal(signal.SIGSTOP)
        try:
            await_true(lambda: _stands_between_transactions(arena, worker, topic), "a moment without an open transaction", SETTLE_S)
            sealed = arena.admin.seal(topic)
            if arena.admin.undecided(topic):  # what was still on its way began one: Kafka's loss, that must not be counted as ours
                raise Stuck(f"a transaction began on {topic} before it was sealed; play the round again")
            arena.watch.read_to(sealed)
            arena.admin.delete(topic)
        finally:
            worker.signal(signal.SIGCONT)
        try:
            _ends_loudly(arena)
        finally:
            arena.admin.create(topic)
            arena.watch.begin_again(topic)
        since_ms = now_ms()
        arena.keep(1)
        took_s = arena.recovered(since_ms)
    arena.settle()
    return took_s
