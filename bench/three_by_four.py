"""The `payments` pipeline with three windows of four entities, and boosted trees trained on them: the size that speed is promised for.

Everything else is as shipped: events, rules on what is left, reasons, full verdicts, decisions log, state.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import ground

ENTITIES = {"customer": "customer_id", "card": "card_id", "terminal": "terminal_id", "ip": "ip"}
WINDOWS = ("1h", "24h", "7d")
AGGREGATES = ["count", "sum:amount"]
LEFT_OUT = ("labels", "lists", "velocity", "rules", "vector", "reasons", "verdict")
RULES = ("impossible_address", "amount_limit", "daily_amount_limit")
TRAINED = 150_000  # events


def toml(value: Any) -> str:
    """Gives a value of a pipeline file as TOML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {toml(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def pipeline() -> dict[str, Any]:
    """Gives what the pipeline file says."""
    whole = tomllib.loads((ground.ROOT / "pipelines/payments.toml").read_text())
    told = {name: section for name, section in whole.items() if name not in LEFT_OUT}
    told["velocity"] = {
        f"{name}_{window}": {"entity": entity, "window": window, "aggregates": AGGREGATES}
        for name, entity in ENTITIES.items()
        for window in WINDOWS
    }
    counted = [f"{name}_{what.replace(':', '_')}" for name in told["velocity"] for what in AGGREGATES]
    told["vector"] = {"numeric": ["amount", "hour", "is_night", "is_weekend", *counted]}
    told["rules"] = [rule for rule in whole["rules"] if rule["code"] in RULES]
    monotone = {name: way for name, way in whole["reasons"]["monotone"].items() if name in told["vector"]["numeric"]}
    told["reasons"] = whole["reasons"] | {"monotone": monotone, "normal": {}}
    return told | {"verdict": {"fields": "all"}}


def prepare(directory: Path) -> tuple[Path, Path]:
    """Writes the pipeline file and trains its model (about a minute); gives the file and the directory of the models."""
    file, models, paid = directory / "payments.toml", directory / "models", directory / "paid.jsonl"
    file.write_text("".join(f"{name} = {toml(value)}\n" for name, value in pipeline().items()))
    for words in (
        ["generate", "--pipeline", "payments", "--events", str(TRAINED), "--output", str(paid)],
        ["train", str(file), "--data", str(paid), "--models", str(models), "--json"],
    ):
        subprocess.run([sys.executable, "-m", "streamapp", *words], check=True, stdout=subprocess.DEVNULL, cwd=ground.ROOT)
    return file, models
