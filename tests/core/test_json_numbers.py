"""Numbers as a JSON array: equal when read back, and nothing written where it does not belong."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from streamapp.core import json_numbers

LONGEST = -1.2345678901234567e-300
CHECKED = "libc_malloc_debug.so.0"  # glibc's own: it looks behind every block that is freed
MANY = f"""
import numpy as np
from streamapp.core import json_numbers
for n in range(0, 700, 3):
    json_numbers.array(np.full(n, {LONGEST}))
"""


def test_digits_read_back_equal_and_null_is_what_is_not_finite() -> None:
    told = json.loads(json_numbers.array(np.array([LONGEST, 0.0, 1 / 3, np.nan, -np.inf])).tobytes())
    assert told == [LONGEST, 0.0, 1 / 3, None, None]


def test_many_long_numbers_stay_within_their_buffer() -> None:
    environment = os.environ | {"LD_PRELOAD": CHECKED, "MALLOC_CHECK_": "3"}
    run = subprocess.run([sys.executable, "-c", MANY], env=environment, capture_output=True, text=True, timeout=120, check=False)
    if "cannot be preloaded" in run.stderr:
        pytest.skip("no glibc of 2.34 or newer: nothing looks behind the blocks")
    assert (run.returncode, run.stderr) == (0, "")
