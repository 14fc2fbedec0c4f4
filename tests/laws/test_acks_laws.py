"""Laws of the ledger: whatever the order of fetches, acks, commits and rebalances, no record is skipped and none is committed early."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streamapp.bus.acks import Acks, Claim, Fetched, Partition, Ticket
from streamapp.core.errors import InvariantBroken

SOURCES = [Partition("events", number) for number in range(3)]


class Ledger(RuleBasedStateMachine):
    """Drives the ledger beside a model that remembers every single offset."""

    @initialize()
    def begin(self) -> None:
        self.acks = Acks()
        self.generation = 0
        self.open: list[tuple[Ticket, Claim, range]] = []
        self.stale: list[Ticket] = []
        self.done: dict[Claim, set[int]] = {}
        self.start: dict[Claim, int] = {}
        self.last: dict[Claim, int] = {}
        self.told: dict[Claim, int] = {}
        self.rebalance([0, 7, 100])

    @rule(starts=st.lists(st.integers(0, 1000), min_size=3, max_size=3))
    def rebalance(self, starts: list[int]) -> None:
        self.generation += 1
        self.stale += [ticket for ticket, _, _ in self.open]
        self.open = []
        for source, start in zip(SOURCES, starts, strict=True):
            claim = self.acks.claim(source, self.generation)
            self.start[claim], self.done[claim] = start, set()

    @rule(parts=st.dictionaries(st.integers(0, 2), st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1))
    def fetch(self, parts: dict[int, tuple[int, int]]) -> None:
        fetched, spans = [], []
        for number, (rows, gap) in parts.items():
            claim = self.acks.get(SOURCES[number])
            assert claim is not None
            begin = self.start[claim] if claim.next is None else claim.next
            end = begin + rows + gap
            if end > begin:
                fetched.append(Fetched(claim, begin, end, rows, 5))
                spans.append((claim, range(begin, end), rows))
        tickets = iter(self.acks.admit(fetched))
        for claim, span, rows in spans:
            if rows:
                self.open.append((next(tickets), claim, span))
            else:
                self.done[claim].update(span)

    @rule(pick=st.integers(0, 1000))
    def ack(self, pick: int) -> None:
        if self.open:
            ticket, claim, span = self.open.pop(pick % len(self.open))
            assert self.acks.ack(ticket)
            assert not self.acks.ack(ticket), "a second ack changed something"
            self.done[claim].update(span)

    @rule(pick=st.integers(0, 1000))
    def ack_from_before_the_rebalance(self, pick: int) -> None:
        if self.stale:
            before = (self.acks.committable(), self.acks.records_in_flight, self.acks.acked_records)
            assert not self.acks.ack(self.stale[pick % len(self.stale)])
            assert before == (self.acks.committable(), self.acks.records_in_flight, self.acks.acked_records)

    @rule()
    def commit(self) -> None:
        offsets = self.acks.committable()
        for claim, offset in offsets:
            assert claim.live
            assert claim.generation == self.generation
            assert offset > self.told.get(claim, -1), "a commit went back or repeated itself"
            assert set(range(self.start[claim], offset)) <= self.done[claim], "a commit passed a record that is not acknowledged"
            self.told[claim] = offset
        self.acks.committed(offsets)
        assert self.acks.committable() == []

    @invariant()
    def position_is_the_end_of_the_acknowledged_prefix(self) -> None:
        for claim in self.acks.claims():
            if claim.next is None:
                continue
            prefix = self.start[claim]
            waiting = [span.start for _, owner, span in self.open if owner is claim]
            prefix = min(waiting) if waiting else claim.next
            assert claim.position == prefix
            assert claim.position >= self.last.get(claim, 0), "the position went back"
            self.last[claim] = claim.position

    @invariant()
    def flight_counts_open_records(self) -> None:
        assert self.acks.records_in_flight == sum(ticket.rows for ticket, _, _ in self.open)
        assert self.acks.batches_in_flight == len({id(ticket.flight) for ticket, _, _ in self.open})


Ledger.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLedger = Ledger.TestCase


def test_a_step_back_or_a_jump_is_refused() -> None:
    acks = Acks()
    claim = acks.claim(SOURCES[0], 1)
    acks.admit([Fetched(claim, 10, 20, 10, 0)])
    for start in (10, 19, 21):
        with pytest.raises(InvariantBroken, match="instead of 20"):
            acks.admit([Fetched(claim, start, start + 5, 5, 0)])


def test_a_claim_placed_at_an_offset_accepts_no_other_start() -> None:
    acks = Acks()
    claim = acks.claim(SOURCES[0], 1, position=50)
    with pytest.raises(InvariantBroken, match="instead of 50"):
        acks.admit([Fetched(claim, 49, 60, 11, 0)])
    (ticket,) = acks.admit([Fetched(claim, 50, 60, 10, 0)])
    acks.ack(ticket)
    assert [offset for _, offset in acks.committable()] == [60]


def test_a_retired_claim_takes_nothing_more() -> None:
    acks = Acks()
    claim = acks.claim(SOURCES[0], 1)
    acks.retire(SOURCES[0])
    with pytest.raises(InvariantBroken, match="generation 1"):
        acks.admit([Fetched(claim, 0, 5, 5, 0)])
