"""Processes a command starts end with it, in order, whatever ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest

from streamapp.cli.children import Children
from streamapp.core.errors import BusError


def test_children_end_with_the_block_also_when_it_fails() -> None:
    with contextlib.suppress(ValueError), Children() as children:
        child = children.start("broker", ["broker", "--until-stdin-closes"])
        assert ":" in child.first_line(30)
        raise ValueError("ours")
    assert child.process.returncode == 0, "it was asked, and ended by itself"


def test_a_child_that_ends_is_told_with_its_last_words() -> None:
    with Children() as children:
        child = children.start("broker", ["no-such-command"])
        child.process.wait(30)
        with pytest.raises(BusError, match="ended with exit code 2: Error: No command 'no-such-command'"):
            children.check()


def test_a_child_that_never_speaks_is_told() -> None:
    with Children() as children:
        child = children.start("worker", ["no-such-command"])
        child.process.wait(30)
        assert child.first_line(30).startswith("Usage")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_no_child_survives_its_parent_whatever_signal_ends_it(number: signal.Signals) -> None:
    script = textwrap.dedent(
        """
        import time
        from streamapp.cli.children import Children
        with Children() as children:
            child = children.start("broker", ["broker", "--until-stdin-closes"])
            child.first_line(30)
            print(child.process.pid, flush=True)
            time.sleep(60)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, number)
    parent.stdout.close()
    assert parent.wait(30) != 0
    psutil.wait_procs([child], timeout=30)
    with contextlib.suppress(psutil.NoSuchProcess):  # it may end for good between the two questions
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
