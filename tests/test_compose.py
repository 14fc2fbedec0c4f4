"""The compose file: no Docker here, so what can be read from it is checked: it parses, its parts agree, and it fits a small machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from streamapp.config import load_settings
from streamapp.core.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
UNITS = {"m": 1, "g": 1024}


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def test_it_fits_two_cpus_and_four_gigabytes(compose: Any) -> None:
    limits = {name: one["deploy"]["resources"]["limits"] for name, one in compose["services"].items()}
    lasting = [limit for name, limit in limits.items() if name != "topics"]  # that one ends before the worker starts
    assert sum(float(limit["cpus"]) for limit in lasting) <= 2.0
    assert sum(int(limit["memory"][:-1]) * UNITS[limit["memory"][-1]] for limit in limits.values()) <= 4096


def test_what_a_service_waits_for_exists_and_can_be_waited_for(compose: Any) -> None:
    services = compose["services"]
    for one in services.values():
        for name, wanted in one.get("depends_on", {}).items():
            assert wanted["condition"] == "service_completed_successfully" or "healthcheck" in services[name]
            assert wanted["condition"] != "service_completed_successfully" or services[name]["restart"] == "no"


def test_the_program_accepts_its_environment(compose: Any) -> None:
    environ = {name: value for name, value in compose["services"]["worker"]["environment"].items() if name != "STREAMAPP_ENTITY_KEY"}
    settings = load_settings(environ=environ)
    listeners = compose["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"INSIDE://{settings.bootstrap}," in listeners
    with pytest.raises(ConfigError, match="did you mean"):
        load_settings(environ=environ | {"STREAMAPP_METRIC_PORT": "1"})


def test_every_listener_has_a_protocol_and_only_the_controller_is_not_advertised(compose: Any) -> None:
    kafka = compose["services"]["kafka"]["environment"]
    names = {key: {part.split(":")[0] for part in kafka[key].split(",")} for key in kafka if key.endswith(("LISTENERS", "PROTOCOL_MAP"))}
    assert names["KAFKA_LISTENERS"] == names["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"] == {"INSIDE", "OUTSIDE", "CONTROLLER"}
    assert names["KAFKA_ADVERTISED_LISTENERS"] == {"INSIDE", "OUTSIDE"}
    ports = {address.rsplit(":", 1)[1] for address in kafka["KAFKA_ADVERTISED_LISTENERS"].split(",")}
    assert {mapping.rsplit(":", 1)[1] for mapping in compose["services"]["kafka"]["ports"]} <= ports


def test_nothing_is_shown_to_other_machines(compose: Any) -> None:
    for one in compose["services"].values():
        assert all(mapping.startswith("127.0.0.1:") for mapping in one.get("ports", []))


def test_the_image_gets_every_file_that_its_recipe_copies() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    copied = set()
    for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied |= set(line.split()[1:-1])
    assert copied == let_in
