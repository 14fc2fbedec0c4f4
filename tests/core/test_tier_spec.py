"""The `[[tiers]]` of a pipeline file: cuts that hold, and every mistake told with its line and its fix."""

from __future__ import annotations

import tomllib

import pytest

from streamapp.core.errors import ConfigError
from streamapp.core.spec import PipelineSpec, parse_spec
from streamapp.core.tier_spec import ThresholdsSection, TierSpec

LEAST = """
[pipeline]
name = "p"
version = "1"
key = "id"

[event.fields.id]
type = "id"
required = true

[thresholds]
approve = 0.1
block = 0.9
"""
CALLABLE = '[[tiers]]\nname = "heavy"\ncallable = "mine:score"\nversion = "1"\nreads = ["id"]\ntime_ms = 100\n'


def parsed(tiers: str, head: str = LEAST) -> PipelineSpec:
    return parse_spec(tomllib.loads(head + tiers), "file.toml", head + tiers)


@pytest.mark.parametrize(
    ("own", "approve", "block"),
    [
        ({}, 0.1, 0.9),
        ({"approve": 0.05, "block": 0.95}, 0.05, 0.95),
        ({"block": "never"}, 0.1, "never"),
        ({"review": 0.7, "block": "never"}, 0.7, "never"),
        ({"review": 0.7, "approve": 0.2}, 0.2, 0.9),
        ({"approve": "card", "block": "card"}, "card", "card"),
    ],
)
def test_a_tier_has_its_own_cuts_or_those_of_all(own: dict[str, object], approve: object, block: object) -> None:
    tier, thresholds = TierSpec(name="heavy", model="m", **own), ThresholdsSection(approve=0.1, block=0.9)
    assert (tier.says("approve", thresholds), tier.says("block", thresholds)) == (approve, block)


def test_tiers_of_every_kind_stand_beside_one_another() -> None:
    spec = parsed('[[tiers]]\nname = "first"\nexpression = "0.5"\n[[tiers]]\nname = "fast"\nmodel = "m"\nrows_max = 64\n' + CALLABLE)
    assert [tier.name for tier in spec.tiers] == ["first", "fast", "heavy"]
    assert (spec.tiers[1].rows_max, spec.tiers[2].time_ms, spec.tiers[2].rows_per_call) == (64, 100, 32)


@pytest.mark.parametrize(
    ("tiers", "says"),
    [
        ('[[tiers]]\nname = "a"\n', "line 14: tiers[0]: a: name either a `model`, an `expression` or a `callable`"),
        ('[[tiers]]\nname = "a"\nmodel = "m"\nexpression = "1"\n', "name either a `model`"),
        (CALLABLE.replace('version = "1"\n', ""), "tiers[0].version: heavy: a callable needs a `version`"),
        (CALLABLE.replace("time_ms = 100\n", ""), "tiers[0].time_ms: heavy: a callable needs `time_ms`"),
        (CALLABLE.replace('reads = ["id"]\n', ""), "tiers[0].reads: heavy: a callable needs `reads`"),
        (CALLABLE.replace("mine:score", "mine.score"), "tiers[0].callable"),
        (CALLABLE.replace("100", "1000"), "tiers[0].time_ms"),
        (CALLABLE + 'block = "card"\n', 'is a callable and has no card; write a probability or "never"'),
        ('[[tiers]]\nname = "a"\nmodel = "m"\nreads = ["id"]\n', "tiers[0].reads: a: only a `callable` is told what to read"),
        ('[[tiers]]\nname = "a"\nexpression = "1"\ntime_ms = 5\n', "an expression takes no time worth waiting for"),
        ('[[tiers]]\nname = "a"\nexpression = "1"\nlabels = { x = 0.5 }\n', "tiers[0].labels: a: only a `model` has labels"),
        ('[[tiers]]\nname = "a"\nmodel = "m"\napprove = 0.95\n', "tiers[0].approve: a: 0.95 is above block = 0.9"),
        ('[[tiers]]\nname = "a"\nmodel = "m"\nreview = 0.95\n', "tiers[0].review: a: 0.95 is above block = 0.9"),
        ('[[tiers]]\nname = "a"\nmodel = "m"\nrow_max = 5\n', "unknown key `row_max` (did you mean `rows_max`?)"),
    ],
)
def test_what_does_not_fit_is_told_with_its_fix(tiers: str, says: str) -> None:
    with pytest.raises(ConfigError) as told:
        parsed(tiers)
    assert says in str(told.value)
