"""A worker that says it is ready has every kernel there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("pipeline", ["messages", "payments"])
def test_nothing_is_compiled_or_loaded_after_the_warm_up(pipeline: str) -> None:
    # In a process of its own: in this one, other tests have had kernels compiled.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMAPP_")}
    command = [sys.executable, "-m", "tests.late_kernels", pipeline]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert (run.returncode, run.stdout) == (0, ""), run.stderr
