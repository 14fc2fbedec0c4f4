"""A pipeline file that extends another says only what differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamapp.config import load_pipeline
from streamapp.core.document import overlaid
from streamapp.core.errors import ConfigError

BASE = """
[pipeline]
name = "base"
version = "1"
key = "id"
owner = "us"

[event.fields.id]
type = "id"
required = true

[thresholds]
approve = 0.2
block = 0.8
"""


def test_tables_are_laid_over_key_by_key_and_named_entries_one_by_one() -> None:
    base = {"a": {"x": 1, "y": {"z": 2}}, "tiers": [{"name": "fast", "model": "m"}, {"name": "slow"}], "list": [1, 2]}
    own = {"a": {"y": {"w": 3}}, "tiers": [{"name": "fast", "block": 0.9}, {"name": "third"}], "list": [3]}
    assert overlaid(base, own) == {
        "a": {"x": 1, "y": {"z": 2, "w": 3}},
        "tiers": [{"name": "fast", "model": "m", "block": 0.9}, {"name": "slow"}, {"name": "third"}],
        "list": [3],
    }
    first = {"tiers": [{"name": "sieve"}, {"name": "slow"}, {"name": "fast"}]}
    assert [tier["name"] for tier in overlaid(base, first)["tiers"]] == ["sieve", "slow", "fast"], "all are named: that order holds"
    assert base["tiers"] == [{"name": "fast", "model": "m"}, {"name": "slow"}], "what is extended stays as it was"


def test_a_file_is_read_on_top_of_the_one_beside_it(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(BASE)
    (tmp_path / "own.toml").write_text('extends = "base"\n[pipeline]\nname = "own"\n[thresholds]\nblock = 0.9\n')
    spec = load_pipeline(str(tmp_path / "own.toml"))
    assert (spec.pipeline.name, spec.pipeline.owner, spec.thresholds.approve, spec.thresholds.block) == ("own", "us", 0.2, 0.9)


def test_what_is_wrong_is_told_by_key_and_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(BASE)
    (tmp_path / "own.toml").write_text('extends = "base"\n[thresholds]\nblok = 0.9\n')
    with pytest.raises(ConfigError, match=r"thresholds.blok: unknown key `blok` \(did you mean `block`\?\)"):
        load_pipeline(str(tmp_path / "own.toml"))
    (tmp_path / "base.toml").write_text('extends = "own"\n' + BASE)
    with pytest.raises(ConfigError, match="extends itself in the end"):
        load_pipeline(str(tmp_path / "own.toml"))
    (tmp_path / "own.toml").write_text('extends = "nothing_of_that_name"\n')
    with pytest.raises(ConfigError, match="there is no pipeline nothing_of_that_name"):
        load_pipeline(str(tmp_path / "own.toml"))
