"""`generate` and `train` for payments: what they write, and options that would mean nothing are refused with a way out."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from streamapp.cli.generate import command as generate
from streamapp.cli.train import command as train
from streamapp.core.errors import ConfigError


def test_generate_writes_payments_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "paid.jsonl"
    done = CliRunner().invoke(generate, ["--pipeline", "payments", "-n", "50", "--seed", "3", "--users", "200", "-o", str(path)])
    assert done.exit_code == 0, done.output
    events = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert len(events) == 50 and all(event["event_id"].startswith("p3-") for event in events)


@pytest.mark.parametrize("option", [["--garbage", "0"], ["--no-drift"], ["--spam", "0.1"], ["--events-per-s", "5"]])
def test_generate_refuses_what_says_nothing_about_payments(option: list[str]) -> None:
    refused = CliRunner().invoke(generate, ["--pipeline", "payments", *option]).exception
    assert isinstance(refused, ConfigError) and "says nothing about payments" in str(refused)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["payments", "--split", "random"], "would leak"),
        (["payments", "--miss-rate", "0.1", "--caught", "0.9"], "say the same thing"),
        (["messages", "--kind", "sieve", "--recall", "0.9"], "blocks nothing"),
        (["messages", "--kind", "trees"], "declares n-grams"),
    ],
)
def test_train_refuses_what_cannot_be_meant(arguments: list[str], says: str, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_bytes(b"{}\n")
    refused = CliRunner().invoke(train, [*arguments, "--data", str(data), "--models", str(tmp_path)]).exception
    assert isinstance(refused, ConfigError) and says in str(refused)
    assert not any(path.is_dir() for path in tmp_path.iterdir())


@pytest.mark.usefixtures("trees")
def test_train_looks_for_fraud_where_events_have_no_text(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_bytes(b'{"customer_id":"c","card_id":"k","terminal_id":"t","amount":1,"label":"spam","event_time":5}\n')
    refused = CliRunner().invoke(train, ["payments", "--data", str(data), "--models", str(tmp_path)]).exception
    assert isinstance(refused, ConfigError) and "'fraud'" in str(refused)
