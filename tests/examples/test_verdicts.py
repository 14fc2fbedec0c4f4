"""The five verdicts that README and docs show are those the line gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_shown_verdicts_are_those_the_line_gives_now() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "verdicts.py", "--check"], capture_output=True, text=True, check=False, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_they_are_one_of_each_kind_and_say_why() -> None:
    page = (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8")
    for said in ('"verdict": "approve"', '"decided_by": "rule"', '"verdict": "review"', '"component": "redis"', '"counterfactual_approve"'):
        assert said in page
    assert page.count('"normal":') > 3 and page.count("## ") == 5
