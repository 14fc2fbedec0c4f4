"""What has been fetched, acknowledged and committed, per partition and ownership; pure bookkeeping, no I/O and no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from streamapp.core.errors import InvariantBroken


class Partition(NamedTuple):
    """A topic and a partition number; equal to Faust's and aiokafka's own tuples."""

    topic: str
    partition: int


class Claim:
    """One ownership of one partition: from its assignment (or release) until it is revoked or held."""

    __slots__ = ("committed", "generation", "live", "next", "position", "source", "tickets")

    def __init__(self, source: Partition, generation: int) -> None:
        self.source, self.generation, self.live = source, generation, True
        self.next: int | None = None  #        offset after the last one fetched; None before the first fetch
        self.position: int | None = None  #    everything below is acknowledged: what may be committed
        self.committed: int | None = None  #   what the group has of it
        self.tickets: deque[Ticket] = deque()  # fetched and not below `position`, in offset order


class Flight:
    """One delivered batch: how many of its tickets are still open."""

    __slots__ = ("open",)

    def __init__(self, open_tickets: int) -> None:
        self.open = open_tickets


class Ticket:
    """One segment of a delivered batch: records with offsets in [start, end)."""

    __slots__ = ("acked", "claim", "end", "flight", "oldest_ms", "rows", "start")

    def __init__(self, claim: Claim, flight: Flight, start: int, end: int, rows: int, oldest_ms: int) -> None:
        self.claim, self.flight = claim, flight
        self.start, self.end, self.rows, self.oldest_ms = start, end, rows, oldest_ms
        self.acked = False


class Fetched(NamedTuple):
    """What one fetch brought of one partition, before it is admitted."""

    claim: Claim
    start: int  #      position before the fetch
    end: int  #        position after it; gaps inside are legal (compaction, transaction markers)
    rows: int  #       records brought; 0 when there were markers only
    oldest_ms: int  #  timestamp of the first record, epoch ms


class Acks:
    """Ledger of all claims of a consumer.

    Laws: what may be committed never passes the lowest un-acked start, never goes back within a claim, and an ack under a claim
    that is no longer live changes nothing. Every operation is O(1) amortised per segment.
    """

    def __init__(self, on_settled: Callable[[], None] = lambda: None) -> None:
        """`on_settled` is called whenever records or batches leave the flight."""
        self.records_in_flight = 0
        self.batches_in_flight = 0
        self.acked_records = 0  #    since the start, over all claims
        self.dropped_records = 0  #  given up without ack: revoked or held
        self._claims: dict[Partition, Claim] = {}
        self._on_settled = on_settled

    def claims(self) -> tuple[Claim, ...]:
        """Gives the live claims."""
        return tuple(self._claims.values())

    def get(self, source: Partition) -> Claim | None:
        """Gives the live claim on a partition, or None."""
        return self._claims.get(source)

    def claim(self, source: Partition, generation: int, position: int | None = None) -> Claim:
        """Takes a partition under a generation of the group, from `position` on if given; an older claim on it is retired."""
        self.retire(source)
        claim = self._claims[source] = Claim(source, generation)
        claim.next = claim.position = claim.committed = position
        return claim

    def retire(self, source: Partition) -> int | None:
        """Gives a partition up: what is un-acked is dropped. Gives the position that was reached, None when unknown."""
        claim = self._claims.pop(source, None)
        if claim is None:
            return None
        claim.live = False
        for ticket in claim.tickets:
            if not ticket.acked:
                self.dropped_records += ticket.rows
                self._settle(ticket)
        claim.tickets.clear()
        self._on_settled()
        return claim.position

    def admit(self, fetched: Sequence[Fetched]) -> tuple[Ticket, ...]:
        """Takes what one batch carries, in the batch's order; gives its tickets. Raises InvariantBroken on a step back or a jump."""
        flight = Flight(sum(1 for part in fetched if part.rows))
        tickets: list[Ticket] = []
        for part in fetched:
            claim = part.claim
            if claim.next is None:
                claim.position = claim.committed = part.start
            elif claim.next != part.start:
                raise InvariantBroken(f"{claim.source} continued at {part.start} instead of {claim.next}")
            if not claim.live or part.end < part.start:
                raise InvariantBroken(f"{claim.source} [{part.start}, {part.end}) cannot be admitted under generation {claim.generation}")
            claim.next = part.end
            ticket = Ticket(claim, flight, part.start, part.end, part.rows, part.oldest_ms)
            claim.tickets.append(ticket)
            if part.rows:
                tickets.append(ticket)
                self.records_in_flight += part.rows
            else:
                ticket.acked = True
                _advance(claim)
        if flight.open:
            self.batches_in_flight += 1
        return tuple(tickets)

    def ack(self, ticket: Ticket) -> bool:
        """Counts a segment as done; gives whether that changed anything (False: acked before, or the claim is gone)."""
        claim = ticket.claim
        if ticket.acked or not claim.live:
            return False
        ticket.acked = True
        self.acked_records += ticket.rows
        self._settle(ticket)
        _advance(claim)
        self._on_settled()
        return True

    def committable(self) -> list[tuple[Claim, int]]:
        """Gives the claims that got further than what the group knows, with the offset to commit."""
        return [
            (claim, claim.position)
            for claim in self._claims.values()
            if claim.position is not None and (claim.committed is None or claim.position > claim.committed)
        ]

    def committed(self, offsets: Sequence[tuple[Claim, int]]) -> None:
        """Notes what the broker has confirmed."""
        for claim, offset in offsets:
            claim.committed = offset if claim.committed is None else max(claim.committed, offset)

    def uncommitted_records(self) -> int:
        """Gives an upper bound of the records that the group would get again: fetched offsets beyond the committed one."""
        spans = ((claim.next, claim.committed) for claim in self._claims.values())
        return sum(end - start for end, start in spans if end is not None and start is not None)

    def _settle(self, ticket: Ticket) -> None:
        self.records_in_flight -= ticket.rows
        ticket.flight.open -= 1
        if ticket.flight.open == 0:
            self.batches_in_flight -= 1


def _advance(claim: Claim) -> None:
    tickets = claim.tickets
    while tickets and tickets[0].acked:
        claim.position = tickets.popleft().end
