"""What every test may ask for: brokers, and the shared data where it is present."""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamapp.bus.embedded import EmbeddedBroker
from tests.redis_server import DEADLINE_S, Server

ROOT = Path(__file__).resolve().parent.parent

# A shell that runs the tests in the background has SIGINT ignored, and so would every process that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# LightGBM's wheel comes without the OpenMP library, which a fresh machine may not have; `streamapp train` says so, and all else runs.
try:
    import lightgbm  # noqa: F401
except OSError as unloaded:
    _WITHOUT = f"LightGBM cannot be loaded ({unloaded}): tests that grow trees are left out; Debian: apt-get install libgomp1"
    _TREES = "control/test_boost control/test_train_stack control/test_train_trees core/test_counterfactual oracle/test_fraud_ladder"
    collect_ignore = [f"{name}.py" for name in _TREES.split()]
else:
    _WITHOUT = ""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Gives how many processes share `make test`, 0: this one runs all; more than four would wait for the longest file.

    What somebody picks out begins sooner in one process, and is easier to read. Workers on a real Redis or Kafka have deadlines of
    milliseconds to meet, so their tests have the machine to themselves.
    """
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.keyword
    if not whole or any(os.environ.get(f"STREAMAPP_TEST_{real}") for real in ("KAFKA", "REDIS")):
        return 0
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 4)


def pytest_report_header() -> str:
    """Says at the top of a run what this machine cannot show."""
    return _WITHOUT


@pytest.fixture
def trees() -> None:
    """Skips a test that grows a tree where that cannot be done."""
    if _WITHOUT:
        pytest.skip(_WITHOUT)


@pytest.fixture(scope="session")
def embedded() -> Iterator[str]:
    """HOST:PORT of one embedded broker for the whole run; give every test its own topics with `namespace`."""
    with EmbeddedBroker() as broker:
        yield broker.address


@pytest.fixture
def fresh_embedded() -> Iterator[str]:
    """HOST:PORT of an embedded broker of this test alone."""
    with EmbeddedBroker() as broker:
        yield broker.address


@pytest.fixture
def namespace() -> str:
    """A topic namespace that no other test uses, so that brokers can be shared."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def embedded_faust() -> dict[str, object]:
    """Settings with which a plain Faust app, without `build_app`, runs on the embedded broker."""
    return {
        "autodiscover": False,
        "store": "memory://",
        "web_enabled": False,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "broker_session_timeout": 6.0,
        "consumer_auto_offset_reset": "earliest",
        "stream_wait_empty": False,
    }


@pytest.fixture(scope="session")
def kafka() -> str:
    """HOST:PORT of a real Apache Kafka; tests that want it are marked `kafka` and skipped with the reason where there is none."""
    return _address("STREAMAPP_TEST_KAFKA", "no Apache Kafka: start one with ops/kafka/kafka start and set STREAMAPP_TEST_KAFKA=HOST:PORT")


@pytest.fixture(scope="session")
def redis_address() -> str:
    """HOST:PORT of a real Redis; tests that want it are marked `redis` and skipped with the reason where there is none."""
    return _address("STREAMAPP_TEST_REDIS", "no Redis: start one and set STREAMAPP_TEST_REDIS=HOST:PORT")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A redis-server of this test alone."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on this machine")
    running = Server(tmp_path)
    yield running
    running.process.kill()
    running.process.wait(DEADLINE_S)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets and fixtures; skipped by name where it is absent."""
    folder = Path(os.environ.get("STREAMAPP_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"shared data is absent: {folder.name} (set STREAMAPP_DATA to its folder)")
    return folder


def _address(variable: str, reason: str) -> str:
    address = os.environ.get(variable)
    if not address:
        pytest.skip(reason)
    return address
