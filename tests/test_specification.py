"""The specification's proofs exist: every test, file and folder it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROWS = [
    line for line in (ROOT / "docs" / "specification.md").read_text(encoding="utf-8").splitlines() if re.match(r"\| [A-Z]{2}\d+ \|", line)
]


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("| ").split(" | ")]


def test_every_row_has_its_five_cells_and_its_id_once() -> None:
    assert ROWS
    assert {len(cells(row)) for row in ROWS} == {5}
    ids = [cells(row)[0] for row in ROWS]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: cells(row)[0])
def test_what_a_row_names_is_there(row: str) -> None:
    _, _, where, proof, _ = cells(row)
    places = re.findall(r"`([\w/.-]+?)`", where)
    assert [place for place in places if "/" in place and not any((ROOT / base / place).exists() for base in ("", "streamapp"))] == []
    before = ""
    proofs = re.findall(r"`([^`]+)`", proof)
    assert proofs
    for path, _, test in (one.partition("::") for one in proofs):
        before = before if path == "…" else path
        assert (ROOT / before).exists(), before
        if test:
            assert f"def {test}(" in (ROOT / before).read_text(encoding="utf-8"), test
