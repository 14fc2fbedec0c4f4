"""Where address space is counted as memory, none is reserved."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streamapp.cli import address_space


@pytest.mark.parametrize(("says", "counted"), [("0\n", False), ("1\n", False), ("2\n", True), (None, False)])
def test_strict_overcommit_counts_it(says: str | None, counted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "overcommit_memory"
    if says is not None:
        told.write_text(says)
    monkeypatch.setattr(address_space, "OVERCOMMIT", told)
    assert address_space.counted() is counted


def test_a_limited_process_counts_it() -> None:
    asked = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33))\nfrom streamapp.cli import address_space\n"
    done = subprocess.run([sys.executable, "-c", f"{asked}print(address_space.counted())"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_a_limited_process_remembers_as_many_ids_as_before(tmp_path: Path) -> None:
    # With a reserve, arrays of 1 GB each would have taken all that the limit leaves.
    program = """
import resource
import numpy as np
from pathlib import Path
from streamapp.cli import address_space
from streamapp.core import growing
from streamapp.core.dedupe import SeenIds
from streamapp.core.windows_clock import Clock
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1100 << 20),) * 2)
assert address_space.counted()
growing.reserve_nothing()
seen, clock, step = SeenIds(1 << 50), Clock(0), 20_000
for low in range(0, 600_000, step):
    number = np.arange(low, low + step)
    seen.admit(np.stack([number * 2654435761 + 1, number + 1], axis=1), np.full(step, 5), np.full(step, 5), clock)
print(len(seen))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "600000", done.stderr
