"""The `payments` pipeline as it is shipped: its rules at their exact limits, through plan, state and decide."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from jsonschema import Draft202012Validator

from streamapp import pipeline
from streamapp.adapters.models import latest_version, load_model
from streamapp.config import load_pipeline
from streamapp.control.payments import PaymentMix, payments
from streamapp.control.release import assemble, check_examples, load_serving
from streamapp.core.events import Flag, Segment
from streamapp.core.route import BLOCK, REVIEW
from streamapp.core.schema import export
from streamapp.core.shared import SharedRead
from streamapp.core.windows_partition import PartitionState

SERVING = assemble(load_pipeline("payments"), {}, b"test-key-of-16-b")
SCORING = load_serving(
    load_pipeline("payments"), Path(__file__).resolve().parents[1] / "models", b"test-key-of-16-b", load_model, latest_version
)
T0 = 1_767_225_600_000
MINUTE = 60_000


def paid(at_ms: int, **fields: Any) -> dict[str, Any]:
    least = {"customer_id": "c1", "card_id": "k1", "terminal_id": "t1", "amount": 20.0, "device_id": "d1", "country": "US"}
    return {**least, "event_time": T0 + at_ms, **fields}


class Line:
    """Events of one partition, decided one micro-batch after the other on one state."""

    def __init__(self) -> None:
        self.state: PartitionState = SERVING.state.new()
        self.offset = 0

    def restart(self) -> None:
        """Everything but what was saved is gone."""
        saved = self.state.snapshot()
        self.state = SERVING.state.new()
        self.state.restore(saved)

    def decide(self, events: Sequence[dict[str, Any]]) -> list[tuple[int, list[str], int]]:
        """Gives (route, codes of the rules that hit, flags) per event."""
        n = len(events)
        offsets = np.arange(self.offset, self.offset + n, dtype=np.int64)
        self.offset += n
        times = np.array([event["event_time"] for event in events], np.int64)
        keys = [event["customer_id"].encode() for event in events]
        segment = Segment("payments.events.v1", 0, 1, offsets, times, keys, [msgspec.json.encode(event) for event in events], [()] * n)
        plan = pipeline.plan([segment], SERVING)
        assert plan.rejects == []
        outcome = pipeline.decide(plan, pipeline.Read(), [self.state], SERVING, 0, lambda: 0.0)
        codes = [[SERVING.rules.codes[rule] for rule in np.flatnonzero(row)] for row in outcome.hits.hit]
        return list(zip(outcome.route.tolist(), codes, plan.flags.tolist(), strict=True))

    def each(self, events: Sequence[dict[str, Any]]) -> list[tuple[int, list[str], int]]:
        """Decides every event in a micro-batch of its own."""
        return [self.decide([event])[0] for event in events]


def bursts(found: list[tuple[int, list[str], int]]) -> list[bool]:
    return [route == BLOCK and "card_burst" in codes for route, codes, _ in found]


def test_every_rule_hits_and_misses_its_own_examples() -> None:
    check_examples(SERVING)
    assert all(rule.hit is not None and rule.miss is not None for rule in SERVING.spec.rules)


FIVE = [paid(0), paid(30_000), paid(60_000), paid(90_000), paid(119_999)]


@pytest.mark.parametrize("cuts", [[5], [1, 1, 1, 1, 1], [4, 1], [2, 3]])
def test_the_fifth_purchase_in_two_minutes_is_blocked_however_batches_are_cut(cuts: list[int]) -> None:
    line, found, first = Line(), [], 0
    for rows in cuts:
        found += line.decide(FIVE[first : first + rows])
        first += rows
    assert bursts(found) == [False] * 4 + [True]


def test_five_purchases_in_exactly_two_minutes_are_one_too_few() -> None:
    assert bursts(Line().each([*FIVE[:4], paid(120_000)])) == [False] * 5


def test_the_fifth_is_found_out_of_order_and_after_a_restart() -> None:
    line = Line()
    assert bursts(line.each([FIVE[2], FIVE[0], FIVE[3], FIVE[1]])) == [False] * 4
    line.restart()
    assert bursts(line.each(FIVE[4:])) == [True]


def test_copies_other_cards_and_other_customers_do_not_count() -> None:
    line = Line()
    copy = {**FIVE[3], "event_id": "four"}
    others = [paid(91_000, card_id="k2"), paid(92_000, customer_id="c2", card_id="k3")]
    found = line.each([*FIVE[:3], copy, copy, *others, FIVE[4]])
    assert bursts(found) == [False] * 7 + [True]
    assert found[4][2] & Flag.DUPLICATE


def test_a_known_device_may_pay_more_than_a_new_one() -> None:
    line = Line()
    known = [paid(0, amount=5.0), paid(25 * 60 * MINUTE, amount=10_001.0), paid(50 * 60 * MINUTE, amount=10_001.0, device_id="d2")]
    found = line.each(known)
    assert ["large_from_new_device" in codes for _, codes, _ in found] == [False, False, True]
    assert found[2][0] == BLOCK
    assert "large_from_new_device" not in line.each([paid(75 * 60 * MINUTE, amount=10_001.0, device_id=None)])[0][1]


def test_a_card_in_two_countries_within_ten_minutes_is_looked_at() -> None:
    found = Line().each([paid(0), paid(10 * MINUTE - 1, country="JP"), paid(20 * MINUTE - 1, country="US")])
    assert ["impossible_travel" in codes for _, codes, _ in found] == [False, True, False]


def test_the_sum_of_a_day_is_exact_to_the_cent() -> None:
    found = Line().each([paid(0, amount=7_500.10), paid(MINUTE, amount=7_499.90), paid(2 * MINUTE, amount=0.01)])
    assert ["daily_amount_limit" in codes for _, codes, _ in found] == [False, False, True]
    assert found[2][0] == REVIEW


def test_what_is_written_is_what_the_schemas_say() -> None:
    """Committed as exported; generated events, their verdicts and their decision records are valid."""
    files = export(SERVING.spec)
    for path, text in files.items():
        assert (Path(__file__).resolve().parents[1] / "schemas" / path).read_text(encoding="utf-8") == text, "run `streamapp schema export`"
    schemas = {name: Draft202012Validator(json.loads(files[f"payments/{name}.v1.json"])) for name in ("event", "verdict", "decision")}
    records = list(payments(1_500, PaymentMix(seed=4, stolen=0.05)))
    copies = [*records, *records[:3]]
    values = [record.value for record in copies]
    n = len(copies)
    segment = Segment(
        "payments.events.v1", 0, 1, np.arange(n), np.full(n, T0 + 86_400_000), [record.key for record in copies], values, [()] * n
    )
    plan = pipeline.plan([segment], SCORING)
    read = pipeline.Read(shared=SharedRead(SCORING.shared.asks(plan), SCORING.shared.new()))
    outcome = pipeline.decide(plan, read, [SCORING.state.new()], SCORING, T0, lambda: 0.0)
    verdicts = SCORING.encoder.verdicts(outcome)
    found = {"event": values, "verdict": verdicts, "decision": SCORING.encoder.decisions(outcome, verdicts)}
    for name, documents in found.items():
        wrong = [error.message for document in documents for error in schemas[name].iter_errors(json.loads(document or b""))]
        assert wrong == [], name
    codes = {reason["code"] for verdict in verdicts for reason in json.loads(verdict)["reasons"]}
    assert {"duplicate"} < codes, "what thieves do is explained as well"
