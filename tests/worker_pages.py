"""What a running worker answers on its one HTTP port, which it tells in its log."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request

from streamapp.cli.children import Child

DEADLINE_S = 120.0  # a first start compiles its kernels


def address_of(worker: Child) -> str:
    """Waits until the worker has its port; gives http://HOST:PORT."""
    give_up = time.monotonic() + DEADLINE_S
    while not (found := re.search(r"Metrics and health on (http://\S+)", "\n".join(worker.lines))):
        assert worker.running and time.monotonic() < give_up, worker.last_words()
        time.sleep(0.005)
    return found[1]


def page(address: str, path: str) -> tuple[int, str]:
    """Gives status and text."""
    try:
        with urllib.request.urlopen(address + path, timeout=30) as answer:  # noqa: S310 - its own address
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()
