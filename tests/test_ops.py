"""Alerts and dashboard speak of metrics and labels that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from streamapp.adapters.metrics import DEFINITIONS
from streamapp.cli.profiles import PERIOD
from streamapp.core.velocity import duration_ms

OPS = Path(__file__).resolve().parent.parent / "ops"
#: Labels that Prometheus adds.
ADDED = {"job", "instance", "le"}
_SERIES = re.compile(r"(streamapp_\w+)(?:\{([^}]*)\})?")
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


def series() -> dict[str, str]:
    """Every series name a scrape shows, with the metric behind it."""
    return {name + suffix: name for name, definition in DEFINITIONS.items() for suffix in _SUFFIXES.get(definition.kind, ("",))}


def expressions() -> list[tuple[str, str]]:
    """Every PromQL expression with the place it stands in."""
    rules = [rule for group in yaml.safe_load((OPS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
    found = [(rule["alert"], rule["expr"]) for rule in rules]
    board = json.loads((OPS / "dashboard.json").read_text())
    found += [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", [])]
    return found


def mistakes(expression: str) -> list[str]:
    """Gives the series, selector labels and grouping labels of an expression that do not exist."""
    known, wrong, labels = series(), [], set(ADDED)
    for name, selector in _SERIES.findall(expression):
        if name not in known:
            wrong.append(name)
            continue
        labels |= set(DEFINITIONS[known[name]].labels)
        wrong += [f"{name}{{{label}}}" for label in re.findall(r"(\w+)\s*[=!]~?=?", selector) if label not in labels]
    for group in re.findall(r"by \(([^)]*)\)", expression):
        wrong += [label for label in re.split(r",\s*", group) if label not in labels]
    return wrong


@pytest.mark.parametrize(("place", "expression"), expressions(), ids=lambda value: value if len(value) < 50 else "")
def test_expressions_use_what_exists(place: str, expression: str) -> None:
    assert mistakes(expression) == [], place


def test_the_check_finds_mistakes() -> None:
    assert mistakes("sum by (rout) (rate(streamapp_verdicts_total[1m]))") == ["rout"]
    assert mistakes('streamapp_lag_records{partitions="1"}') == ["streamapp_lag_records{partitions}"]
    assert mistakes("streamapp_decision_latency_seconds > 1 or streamapp_verdict_total") == [
        "streamapp_decision_latency_seconds", "streamapp_verdict_total",
    ]  # fmt: skip


def test_the_promised_alerts_exist_and_say_what_to_do() -> None:
    rules = {rule["alert"]: rule for group in yaml.safe_load((OPS / "alerts.yml").read_text())["groups"] for rule in group["rules"]}
    promised = {"StreamappLatencyHigh", "StreamappErrors", "StreamappLagNotFalling", "StreamappDriftSustained", "StreamappDeadLetters"}
    assert promised <= set(rules)
    assert "> 0.2" in rules["StreamappLatencyHigh"]["expr"] and "> 0.01" in rules["StreamappErrors"]["expr"]
    for name, rule in rules.items():
        assert rule["labels"]["severity"] in ("page", "ticket") and rule["annotations"]["summary"] and rule["annotations"]["action"], name


def test_every_metric_is_shown_or_alerted() -> None:
    """A metric nobody looks at is a cost: each stands in an alert or on the dashboard."""
    used = {series()[name] for _, expression in expressions() for name, _ in _SERIES.findall(expression) if name in series()}
    assert set(DEFINITIONS) - used == set()


def test_profiles_are_late_two_hours_after_a_load_was_due() -> None:
    (rule,) = (
        rule for group in yaml.safe_load((OPS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
        if rule["alert"] == "StreamappFeaturesOld"
    )  # fmt: skip
    late_s = duration_ms(PERIOD) // 1000 + 2 * 3600
    assert f'streamapp_feature_age_seconds{{feature_set="profile"}}) > {late_s}' in rule["expr"]
    assert 'streamapp_feature_age_seconds{feature_set!="profile"}) > 7200' in rule["expr"], "any other set, after two hours"
