"""Velocity tables of a pipeline file: what they become, and every mistake named."""

from __future__ import annotations

import tomllib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from streamapp.core.errors import ConfigError
from streamapp.core.velocity import StoreSpec, VelocityPlan, duration_ms, parse_velocity
from streamapp.core.velocity_entries import entries
from streamapp.core.windows import Aggregate, Window, WindowStore
from streamapp.core.windows_index import hash_names

FIELDS = {"card_id": "id", "terminal_id": "id", "merchant_id": "id", "amount": "number", "kind": "string", "note": "text"}


def read(document: str) -> tuple[VelocityPlan, list[str]]:
    return parse_velocity(tomllib.loads(document)["velocity"], FIELDS)


GOOD = """
[velocity.card_10m]
entity = "card_id"
window = "10m"
aggregates = ["count", "sum:amount", "distinct:merchant_id"]
[velocity.card_1h]
entity = "card_id"
window = "1h"
include_current = false
aggregates = ["count", "mean:amount", "since", "activity:kind"]
weights = { login = 1, purchase = 5, share = 3 }
other = 0.5
prior = { "mean:amount" = 42.5 }
[velocity.risk_7d]
entity = "terminal_id"
window = "7d"
delay = "7d"
fed_by = "labels"
aggregates = ["count", "risk"]
[velocity.risk_28d]
entity = "terminal_id"
window = "28d"
delay = "7d"
fed_by = "labels"
aggregates = ["positives"]
default = { positives = 0.5 }
"""


def test_tables_over_one_entity_share_a_store() -> None:
    plan, mistakes = read(GOOD)
    assert mistakes == []
    card, risk = plan.stores
    assert (card.name, card.entity, card.keys, [column.field for column in card.values]) == (
        "card_id",
        "card_id",
        ("merchant_id",),
        ["amount", "kind"],
    )
    assert card.plan.windows == (Window(600_000), Window(3_600_000, include_current=False))
    assert card.plan.grace_ms == 300_000 and card.plan.cap == 4096 and card.plan.cold_below == 10
    assert Aggregate("mean", 1, 0, 42.5) in card.plan.aggregates
    assert (risk.name, risk.fed_by, risk.plan.grace_ms, risk.plan.decimals) == ("terminal_id.labels", "labels", 86_400_000, (0, 3, 3))
    assert risk.plan.aggregates == tuple(Aggregate("sum", window, column) for window in (0, 1) for column in (0, 1, 2))
    assert [(feature.name, feature.store, feature.position, feature.default) for feature in plan.features] == [
        ("card_10m_count", "card_id", 0, 0.0),
        ("card_10m_sum_amount", "card_id", 1, 0.0),
        ("card_10m_distinct_merchant_id", "card_id", 2, 0.0),
        ("card_1h_count", "card_id", 3, 0.0),
        ("card_1h_mean_amount", "card_id", 4, 0.0),
        ("card_1h_since", "card_id", 5, 3_600_000.0),
        ("card_1h_activity_kind", "card_id", 6, 0.0),
        ("risk_7d_count", "terminal_id.labels", 0, 0.0),
        ("risk_7d_risk", "terminal_id.labels", 2, 0.0),
        ("risk_28d_positives", "terminal_id.labels", 5, 0.5),
    ]


class Given:
    """Fields as lists."""

    def __init__(self, fields: dict[str, list[Any]]) -> None:
        self.column = fields.__getitem__

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        return np.array(self.column(name), np.float64)

    def hashes(self, name: str) -> npt.NDArray[np.int64]:
        return hash_names([text or "" for text in self.column(name)])


def columns(store: StoreSpec, given: dict[str, list[Any]]) -> tuple[Any, ...]:
    return entries(store, Given(given), {})


def test_declared_velocity_answers_rows() -> None:
    plan, _ = read(GOOD)
    card, _ = plan.stores
    given = {"card_id": ["c", None, "c"], "merchant_id": ["m", "m", "n"], "amount": [10, 7, 2.5], "kind": ["login", "share", "other"]}
    time = np.array([0, 1, 2], np.int64)
    answers = WindowStore(card.plan).advance(columns(card, given)[0], time, time, *columns(card, given)[1:])
    assert answers.value[2].tolist() == [2, 12.5, 2, 1, 42.5, 2, pytest.approx(np.log1p(1.0))]
    assert np.isnan(answers.value[1]).all(), "no card, no part"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('windw = "1h"', "velocity.v.windw: unknown key, did you mean `window`?"),
        ('entity = "amount"', "velocity.v.entity: 'amount' is no declared field of type id or string or text"),
        ('window = "1 hour"', "velocity.v.window: '1 hour' is no duration"),
        ('window = "0s"', "velocity.v.window: must be at least 1 ms"),
        ("include_current = 1", "velocity.v.include_current: must be true or false"),
        ("cap = 0", "velocity.v.cap: must be a whole number from 1 to 65536"),
        ('fed_by = "people"', 'velocity.v.fed_by: must be "events" or "labels"'),
        ("aggregates = []", "velocity.v.aggregates: must be a list"),
        ('aggregates = ["cont"]', "did you mean `count`?"),
        ('aggregates = ["p99:amount"]', "there are count, sum"),
        ('aggregates = ["sum"]', 'needs a field: "sum:<field>"'),
        ('aggregates = ["count:amount"]', "takes no field"),
        ('aggregates = ["sum:kind"]', "needs a declared field of type number or integer; there are: amount"),
        ('aggregates = ["activity:kind"]', "velocity.v.weights: an activity needs weights"),
        ('prior = { "mean:amount" = 1 }', "'mean:amount' is not among the aggregates"),
        ('prior = { count = "many" }', "velocity.v.prior: must be a table of names and finite numbers"),
        ('aggregates = ["sum:amount"]\ndecimals = { amount = 12 }', "velocity.v.decimals: must be a table"),
        ('aggregates = ["count", "count"]', "the feature `v_count` is there already"),
    ],
)
def test_every_mistake_is_named(table: str, said: str) -> None:
    document: dict[str, Any] = {"entity": "card_id", "window": "1h", "aggregates": ["count"]} | tomllib.loads(table)
    _, mistakes = parse_velocity({"v": document}, FIELDS)
    assert len(mistakes) == 1, mistakes
    assert said in mistakes[0]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('delay = "0s"', "velocity.v.delay: must be at least 1 ms"),
        ("include_current = false", "velocity.v.include_current: says nothing about labels, which know count, positives, risk; remove it"),
        ('aggregates = ["risk", "sum:amount"]', "velocity.v.aggregates: 'sum:amount' is nothing that labels know"),
        ("default = { positives = 1 }", "velocity.v.default: 'positives' is not among the aggregates"),
        ('entity = "amount"', "velocity.v.entity: 'amount' is no declared field of type id or string or text"),
    ],
)
def test_every_mistake_about_labels_is_named(table: str, said: str) -> None:
    document: dict[str, Any] = {"entity": "card_id", "window": "1h", "delay": "7d", "fed_by": "labels", "aggregates": ["risk"]}
    _, mistakes = parse_velocity({"v": document | tomllib.loads(table)}, FIELDS)
    assert len(mistakes) == 1, mistakes
    assert said in mistakes[0]


def test_tables_that_share_events_agree_about_them() -> None:
    _, mistakes = parse_velocity(
        {
            "a": {"entity": "card_id", "window": "1h", "aggregates": ["count"], "grace": "1m"},
            "b": {"entity": "card_id", "window": "2h", "aggregates": ["count"], "cap": 5},
            "c": 7,
        },
        FIELDS,
    )
    assert [mistake.split(":")[0] for mistake in mistakes] == ["velocity.b.grace", "velocity.b.cap", "velocity.c"]


def test_durations() -> None:
    assert [duration_ms(text) for text in ("500ms", "90s", "10m", "24h", "30d")] == [500, 90_000, 600_000, 86_400_000, 2_592_000_000]
    for text in ("", "10", "-1s", "1.5h", 10, "01s"):
        with pytest.raises(ConfigError, match="duration"):
            duration_ms(text)
