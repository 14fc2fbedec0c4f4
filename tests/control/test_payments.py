"""Generated payments: one seed is one stream, fraud has the declared shares and looks as described, and the line accepts every event."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import orjson
import pytest

from streamapp.config import load_pipeline
from streamapp.control.generate import Generated
from streamapp.control.payments import COMPROMISED, DAY_MS, FRAUD, GENUINE, LARGE, STOLEN, PaymentMix, day_of, payments
from streamapp.control.payments_world import World, world_of
from streamapp.core.decode import Decoder
from streamapp.core.events import Segment

MIX = PaymentMix(seed=11, customers=2_000, terminals=4_000)
COUNT = 20_000


@pytest.fixture(scope="module")
def stream() -> list[Generated]:
    return list(payments(COUNT, MIX))


@pytest.fixture(scope="module")
def world() -> World:
    return world_of(MIX.seed, MIX.customers, MIX.terminals)


def test_one_seed_is_one_stream_a_longer_one_goes_on_and_another_seed_is_another(stream: list[Generated]) -> None:
    assert list(payments(COUNT, MIX)) == stream
    assert list(payments(500, MIX)) == stream[:500]
    assert list(payments(500, replace(MIX, seed=12))) != stream[:500]
    assert list(payments(0, MIX)) == []


def test_every_event_can_be_decided_and_the_key_is_the_customer(stream: list[Generated]) -> None:
    n = len(stream)
    values = [record.value for record in stream]
    segment = Segment("t", 0, 0, np.arange(n), np.zeros(n, np.int64), [record.key for record in stream], values, [()] * n)
    plan = Decoder(load_pipeline("payments")).plan([segment])
    assert plan.rejects == [] and len(plan) == n == COUNT
    assert len(set(plan.event_id)) == n


def test_records_come_nearly_in_the_order_of_their_times(stream: list[Generated]) -> None:
    times = [orjson.loads(record.value)["event_time"] for record in stream]
    assert times[0] >= MIX.start_ms
    assert any(later < earlier for earlier, later in pairwise(times)), "some are late"
    behind = np.maximum.accumulate(times) - np.array(times)
    assert 0 < behind.max() < 120_000
    assert np.mean(behind > 5_000) < 0.02


def test_labels_are_the_scenarios(stream: list[Generated]) -> None:
    kinds = Counter()
    for record in stream:
        event = orjson.loads(record.value)
        assert record.label == event["label"] == (FRAUD if event["scenario"] else GENUINE)
        kinds[event["scenario"]] += 1
    fraud = COUNT - kinds[""]
    assert set(kinds) == {"", "large_amount", "compromised_terminal", "stolen_card"}
    assert 0.004 * COUNT < fraud < 0.02 * COUNT


def test_large_amounts_are_fraud_and_nothing_honest_is_large(world: World) -> None:
    made = day_of(world, MIX, 3)
    honest = made.amount[made.scenario == 0]
    assert honest.max() <= MIX.large_amount < made.amount[made.scenario == LARGE].min()
    assert made.amount.min() >= 0.01
    assert np.array_equal(made.amount, np.round(made.amount, 2))


def test_everything_at_a_compromised_terminal_is_fraud_for_28_days(world: World) -> None:
    mix = replace(MIX, stolen=0.0, compromised=0.002)
    taken = set(world.compromised_on(0, mix.compromised).tolist())
    still = {one for day in range(1, 29) for one in world.compromised_on(day, mix.compromised).tolist()}
    once = np.array(sorted(taken - still))
    assert once.size
    for day, struck in ((0, True), (27, True), (28, False)):
        made = day_of(world, mix, day)
        there = np.isin(made.terminal, once)
        assert there.any()
        assert bool((made.scenario[there] == COMPROMISED).all()) == struck


def test_a_third_of_a_robbed_customers_payments_are_the_thiefs_for_14_days_at_five_times_the_amount(world: World) -> None:
    mix = replace(MIX, stolen=0.02, burst=0.0, huge=0.0, compromised=0.0)
    robbed = world.robbed_on(0, mix.stolen)
    thieves, honest, factors = 0, 0, []
    for day in (0, 5, 13):
        made = day_of(world, mix, day)
        theirs = np.isin(made.customer, robbed)
        stolen = theirs & (made.scenario == STOLEN)
        thieves, honest = thieves + int(stolen.sum()), honest + int((theirs & ~stolen).sum())
        factors.append(float(np.mean(made.amount[stolen] / world.usual[made.customer[stolen]])))
    assert thieves / (thieves + honest) == pytest.approx(1 / 3, abs=0.1)
    assert np.mean(factors) == pytest.approx(5.0, rel=0.25)
    later = day_of(world, mix, 40)
    assert set(later.customer[later.scenario == STOLEN].tolist()).isdisjoint(
        set(robbed.tolist()) - {one for day in range(27, 41) for one in world.robbed_on(day, mix.stolen).tolist()}
    )


def test_some_thieves_pay_in_bursts_with_one_card(world: World) -> None:
    made = day_of(world, replace(MIX, stolen=0.02, burst=1.0), 0)
    stolen = made.rows(np.flatnonzero(made.scenario == STOLEN))
    times = Counter(stolen.card.tolist())
    assert min(times.values()) >= 5
    card = times.most_common()[-1][0]
    mine = np.sort(stolen.time_ms[stolen.card == card])
    assert mine[4] - mine[0] <= 120_000


def test_a_card_belongs_to_one_customer_and_days_do_not_overlap(world: World) -> None:
    owner: dict[str, int] = {}
    for day in range(3):
        made = day_of(world, MIX, day)
        for card, customer in zip(made.card.tolist(), made.customer.tolist(), strict=True):
            assert owner.setdefault(card, customer) == customer
        since = made.time_ms - MIX.start_ms - day * DAY_MS
        assert since.min() >= 0 and since.max() < DAY_MS + 110_000
