"""The import law: who may import whom, inside the package and from outside, so that the core stays pure and outside things replaceable."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "streamapp"

#: Parts of the package, and which other parts each may import.
LAYERS = {
    "core": set[str](),
    "ports": {"core"},
    "serving": {"core"},
    "explaining": {"core", "serving"},
    "policy": {"core", "serving", "explaining"},
    "pipeline": {"core", "serving", "explaining", "policy"},
    "prefetch": {"core", "ports", "pipeline"},
    "lookahead": {"core", "pipeline", "bus"},
    "config": {"core"},
    "bus": {"core", "ports", "config"},
    "adapters": {"core", "ports", "config"},
    "control": {"core", "pipeline", "policy", "ports", "config"},
    "worker": {"core", "ports", "pipeline", "prefetch", "lookahead", "config", "bus", "adapters", "control"},
    "cli": {"core", "ports", "pipeline", "prefetch", "lookahead", "config", "bus", "adapters", "control", "worker"},
    "__init__": set[str](),
    "__main__": {"cli"},
}
EVERYWHERE = {"numpy", "numba", "llvmlite", "orjson", "msgspec"}  # llvmlite is how numba is extended
#: Third parties beside those, by part.
THIRD_PARTIES = {
    "bus": {"faust", "mode", "aiokafka"},
    "worker": {"faust", "mode", "aiokafka"},
    "control": {"sklearn", "scipy", "onnx", "lightgbm"},
    "cli": {"click", "rich"},
}
#: Third parties that live in one file.
ONE_FILE = {"confluent_kafka": "bus/embedded.py"}
#: Third parties that live in one adapter each, whichever file that is.
ONE_ADAPTER = {"redis", "onnxruntime", "prometheus_client"}
#: Parts of the standard library that reach outside or differ from run to run.
IMPURE = {
    "asyncio", "concurrent", "glob", "http", "io", "logging", "multiprocessing", "os", "pathlib", "pickle", "queue", "random", "secrets",
    "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input"}
IMPURE_ATTRIBUTES = {
    ("datetime", "now"),
    ("datetime", "today"),
    ("datetime", "utcnow"),
    ("date", "today"),
    ("np", "random"),
    ("numpy", "random"),
}
#: Files of core/features that are no family: what all families share, and what puts them together.
SHARED_BY_FAMILIES = {"catalogue"}
NO_FAMILY = {"__init__", "plan", "catalogue"}


def imported(tree: ast.AST) -> Iterator[str]:
    """Gives the full dotted name of all that is imported anywhere in the file: `from a import b` counts as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def violations(place: str, source: str) -> list[str]:
    """Takes a file's place inside the package ("core/text.py") and its source; gives every breach of the law."""
    tree = ast.parse(source)
    parts = place.removesuffix(".py").split("/")
    part = parts[0]
    if part not in LAYERS:
        return [f"{place}: {part} has no place in the house"]
    found = []
    for name in imported(tree):
        first, *rest = name.split(".")
        if first == "streamapp":
            found += _inside(parts, rest)
        elif first in sys.stdlib_module_names:
            if part == "core" and first in IMPURE:
                found.append(f"imports {first}, which is I/O, a clock or chance")
        elif first in ONE_FILE:
            if place != ONE_FILE[first]:
                found.append(f"imports {first}, which lives in {ONE_FILE[first]} only")
        elif first in ONE_ADAPTER:
            if part != "adapters":
                found.append(f"imports {first}, which lives in one adapter only")
        elif first not in EVERYWHERE | THIRD_PARTIES.get(part, set()):
            found.append(f"imports {first or 'relatively'}, which {part} may not")
    if part == "core":
        found += _impure(tree)
    return [f"{place}: {what}" for what in found]


def _inside(parts: list[str], rest: list[str]) -> list[str]:
    part = parts[0]
    target = rest[0] if rest and rest[0] in LAYERS else "__init__"
    if target not in (part, "__init__") and target not in LAYERS[part]:
        return [f"imports {target}"]
    family = parts[:2] == ["core", "features"] and parts[-1] not in NO_FAMILY
    if family and rest[:2] == ["core", "features"] and (len(rest) < 3 or rest[2] not in SHARED_BY_FAMILIES):
        return [f"is a feature family and imports {'.'.join(rest[:3])}"]
    return []


def _impure(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            yield f"calls {node.func.id}"
        elif isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if (owner, node.attr) in IMPURE_ATTRIBUTES:
                yield f"uses {owner}.{node.attr}"


def files() -> dict[str, str]:
    return {str(file.relative_to(PACKAGE)): file.read_text(encoding="utf-8") for file in sorted(PACKAGE.rglob("*.py"))}


def test_the_package_keeps_the_law() -> None:
    found = [breach for place, source in files().items() for breach in violations(place, source)]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("party", sorted(ONE_ADAPTER))
def test_an_outside_thing_has_one_adapter(party: str) -> None:
    users = [place for place, source in files().items() if any(name.split(".")[0] == party for name in imported(ast.parse(source)))]
    assert len(users) <= 1


@pytest.mark.parametrize(
    ("place", "source", "breach"),
    [
        ("core/x.py", "from streamapp.bus.topics import Topics", "imports bus"),
        ("core/x.py", "from streamapp import config", "imports config"),
        ("core/x.py", "def f():\n    import os", "imports os, which is I/O"),
        ("core/x.py", "from time import monotonic", "imports time, which is I/O"),
        ("core/x.py", "import redis", "imports redis, which lives in one adapter only"),
        ("core/x.py", "import click", "imports click, which core may not"),
        ("core/x.py", "open('x')", "calls open"),
        ("core/x.py", "import datetime\ndatetime.datetime.now()", "uses datetime.now"),
        ("core/x.py", "import numpy as np\nnp.random.default_rng(1)", "uses np.random"),
        (
            "core/features/text.py",
            "from streamapp.core.features.profile import compute",
            "is a feature family and imports core.features.profile",
        ),
        ("core/features/text.py", "from streamapp.core.features import FEATURES", "is a feature family and imports core.features.FEATURES"),
        ("ports.py", "from streamapp.pipeline import decide", "imports pipeline"),
        ("pipeline.py", "from streamapp.adapters import models", "imports adapters"),
        ("config.py", "from streamapp.bus.batch import BatchLimits", "imports bus"),
        ("bus/x.py", "from streamapp.adapters import models", "imports adapters"),
        ("bus/x.py", "import confluent_kafka", "imports confluent_kafka, which lives in bus/embedded.py only"),
        ("adapters/x.py", "from aiokafka import AIOKafkaConsumer", "imports aiokafka, which adapters may not"),
        ("control/x.py", "import faust", "imports faust, which control may not"),
        ("control/x.py", "from streamapp.worker import Line", "imports worker"),
        ("worker.py", "import streamapp.cli.main", "imports cli"),
        ("cli/x.py", "import onnxruntime", "imports onnxruntime, which lives in one adapter only"),
        ("cli/x.py", "from . import main", "imports relatively, which cli may not"),
        ("extras/x.py", "", "extras has no place in the house"),
    ],
)
def test_a_breach_is_found(place: str, source: str, breach: str) -> None:
    (found,) = violations(place, source)
    assert found.startswith(f"{place}: {breach}")


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("core/x.py", "import numpy as np\nfrom streamapp.core.errors import Reject\nimport re"),
        ("core/features/text.py", "from streamapp.core.features.catalogue import FeatureDef\nfrom streamapp.core.text import clean"),
        ("core/features/plan.py", "from streamapp.core.features import text, profile"),
        ("bus/embedded.py", "import confluent_kafka"),
        ("bus/x.py", "import faust\nfrom streamapp.config import Settings"),
        ("adapters/x.py", "import redis\nfrom streamapp.ports import Model"),
        ("worker.py", "from streamapp import pipeline\nfrom streamapp.bus.app import build_app"),
        ("cli/x.py", "import click\nfrom streamapp import worker"),
    ],
)
def test_what_the_law_allows_is_let_be(place: str, source: str) -> None:
    assert violations(place, source) == []
