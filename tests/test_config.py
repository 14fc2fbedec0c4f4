"""Settings: where they come from, what is refused and how that is said, and that secrets stay hidden."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from streamapp.bus import security
from streamapp.bus.batch import BatchLimits
from streamapp.config import DEVELOPMENT_KEY, KAFKA, Settings, is_secret, load_settings, shipped
from streamapp.core.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "correct-horse-battery"
KEY = "0123456789abcdef0123456789abcdef"


def rows(settings: Settings) -> dict[str, tuple[str, str]]:
    return {name: (value, origin) for name, value, _, origin, _ in settings.rows()}


def test_without_anything_the_defaults_hold_and_name_themselves() -> None:
    settings = load_settings(environ={})
    assert settings == Settings()
    assert {origin for _, origin in rows(settings).values()} == {"default"}


def test_every_setting_tells_what_it_is() -> None:
    told = list(Settings().rows())
    assert {name for name, *_ in told} == {one.name for one in dataclasses.fields(Settings)} - {"kafka", "origins"}
    assert all(about for *_, about in told)


def test_options_come_before_the_environment_and_that_before_defaults() -> None:
    environ = {"STREAMAPP_BOOTSTRAP": "env:1", "STREAMAPP_BATCH_MAX": "7"}
    settings = load_settings({"bootstrap": "option:2", "batch_max": None}, environ=environ)
    assert (settings.bootstrap, settings.batch_max, settings.batch_wait_ms) == ("option:2", 7, Settings().batch_wait_ms)
    told = rows(settings)
    assert told["bootstrap"] == ("option:2", "--bootstrap")
    assert told["batch_max"] == ("7", "STREAMAPP_BATCH_MAX")


def test_the_process_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMAPP_METRICS_PORT", "0")
    assert load_settings().metrics_port == 0


def test_every_mistake_is_told_at_once_with_its_key_and_what_would_be_right() -> None:
    environ = {
        "STREAMAPP_BATCH_MAX": "0",
        "STREAMAPP_DRAIN_TIMEOUT_S": "nan",
        "STREAMAPP_LOG_LEVEL": "loud",
        "STREAMAPP_BOOTSTRAP": "kafka",
        "STREAMAPP_BATCHMAX": "1",
        "STREAMAPP_LOG_LEVEL_FILE": "/x",
        "STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": "soon",
    }
    with pytest.raises(ConfigError) as told:
        load_settings({"namespace": "a b"}, environ=environ)
    text = str(told.value)
    assert "settings: 8 mistakes" in text
    for line in (
        "batch_max: '0' (STREAMAPP_BATCH_MAX) is not a whole number from 1 to 65,536",
        "drain_timeout_s: 'nan' (STREAMAPP_DRAIN_TIMEOUT_S) is not a number from 0 to 600",
        "log_level: 'loud' (STREAMAPP_LOG_LEVEL) is not one of debug, info, warning, error",
        "bootstrap: 'kafka' (STREAMAPP_BOOTSTRAP) names no server as HOST:PORT",
        "namespace: 'a b' (--namespace) is no prefix of Kafka topic names",
        "STREAMAPP_BATCHMAX: is no setting (did you mean `STREAMAPP_BATCH_MAX`?)",
        "STREAMAPP_LOG_LEVEL_FILE: log_level is no secret and is not read from a file; set STREAMAPP_LOG_LEVEL",
        "session.timeout.ms: 'soon' (STREAMAPP_KAFKA_SESSION_TIMEOUT_MS) is not a whole number",
    ):
        assert line in text


def test_variables_of_the_tests_are_no_settings() -> None:
    assert load_settings(environ={"STREAMAPP_TEST_KAFKA": "x:1", "STREAMAPP_DATA": "/data"}) == Settings()


def test_kafka_settings_come_under_kafkas_names(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text(
        f"# our cluster\n! and this\n\nbootstrap.servers = a:1,\\\n   b:2\nsecurity.protocol: SASL_SSL\n"
        f"sasl.mechanism=SCRAM-SHA-512\nsasl.username=me\\=you\nsasl.password={PASSWORD}\n",
        encoding="utf-8",
    )
    settings = load_settings(kafka_config=file, environ={"STREAMAPP_KAFKA_SASL_USERNAME": "me"})
    assert settings.bootstrap == "a:1,b:2"
    assert dict(settings.kafka) == {
        "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "me", "sasl.password": PASSWORD,
    }  # fmt: skip
    told = rows(settings)
    assert told["sasl.username"] == ("me", "STREAMAPP_KAFKA_SASL_USERNAME")
    assert told["sasl.mechanism"] == ("SCRAM-SHA-512", str(file))
    assert told["sasl.password"] == ("***", str(file))
    assert load_settings({"bootstrap": "c:3"}, environ={"STREAMAPP_KAFKA_CONFIG": str(file)}).bootstrap == "c:3"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("sasl.jaas.config=PlainLoginModule required;", "set sasl.username and sasl.password instead"),
        ("ssl.truststore.location=/x.jks", "export the authority as PEM and set ssl.ca.location"),
        ("sasl.pasword=x", "did you mean `sasl.password`"),
        ("security.protocol=TLS", "'TLS' .* is not one of PLAINTEXT, SSL"),
        ("just words", "client.properties:1: is neither key=value nor a comment"),
    ],
)
def test_what_the_client_does_not_know_is_told_with_the_way_out(tmp_path: Path, line: str, told: str) -> None:
    file = tmp_path / "client.properties"
    file.write_text(line, encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        load_settings(kafka_config=file, environ={})


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.properties cannot be read: No such file"):
        load_settings(kafka_config=tmp_path / "none.properties", environ={})
    with pytest.raises(ConfigError, match=r"STREAMAPP_ENTITY_KEY_FILE: .*/none cannot be read: No such file"):
        load_settings(environ={"STREAMAPP_ENTITY_KEY_FILE": str(tmp_path / "none")})
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"STREAMAPP_KAFKA_SASL_PASSWORD_FILE: .* it is not UTF-8"):
        load_settings(environ={"STREAMAPP_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "binary")})


def test_a_secret_said_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY, encoding="utf-8")
    environ = {"STREAMAPP_ENTITY_KEY": KEY, "STREAMAPP_ENTITY_KEY_FILE": str(tmp_path / "key")}
    with pytest.raises(ConfigError, match=r"STREAMAPP_ENTITY_KEY_FILE: says entity_key a second time"):
        load_settings(environ=environ)


def test_secrets_come_from_files_and_work_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n", encoding="utf-8")
    (tmp_path / "password").write_text(f"{PASSWORD}\r\n", encoding="utf-8")
    environ = {"STREAMAPP_ENTITY_KEY_FILE": str(tmp_path / "key"), "STREAMAPP_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password")}
    settings = load_settings(
        environ=environ | {"STREAMAPP_KAFKA_SASL_USERNAME": "me", "STREAMAPP_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}
    )
    assert settings.entity_key.encode() == KEY.encode()
    assert security.client_arguments(settings.kafka)["sasl_plain_password"] == PASSWORD
    assert settings.warnings() == []


def test_secrets_are_hidden_wherever_settings_are_printed() -> None:
    settings = load_settings(environ={"STREAMAPP_ENTITY_KEY": KEY, "STREAMAPP_KAFKA_SASL_PASSWORD": PASSWORD})
    printed = [repr(settings), str(settings), f"{settings.kafka}", repr(settings.kafka), str(settings.rows()), repr(list(settings.rows()))]
    printed += [repr(settings.entity_key), repr(settings.kafka["sasl.password"]), repr(dataclasses.asdict(settings))]
    for text in printed:
        assert KEY not in text
        assert PASSWORD not in text
    assert rows(settings)["entity_key"] == ("***", "STREAMAPP_ENTITY_KEY")


def test_a_wrong_secret_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError, match=r"entity_key: \*\*\* \(STREAMAPP_ENTITY_KEY\) has to be 16 to 64 bytes") as told:
        load_settings(environ={"STREAMAPP_ENTITY_KEY": "hunter2"})
    assert "hunter2" not in str(told.value)


def test_the_development_key_is_warned_about() -> None:
    (warning,) = load_settings(environ={}).warnings()
    assert "STREAMAPP_ENTITY_KEY_FILE" in warning
    assert 16 <= len(DEVELOPMENT_KEY.encode()) <= 64


@pytest.mark.parametrize("key", ["sasl.password", "ssl.key.password", "ssl.keystore.password", "sasl.jaas.config"])
def test_unknown_names_that_sound_like_secrets_are_secret(key: str) -> None:
    assert is_secret(key)


def test_settings_and_what_takes_them_agree() -> None:
    limits = {one.name: one.default for one in dataclasses.fields(BatchLimits)}
    assert limits == {name: getattr(Settings(), name) for name in limits}
    assert set(security.KNOWN) <= set(KAFKA)


def test_what_is_shipped_is_found_in_the_checkout() -> None:
    assert (shipped("pipelines") / "messages.toml").is_file()


def test_what_is_shipped_is_found_in_an_installed_package(tmp_path: Path) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    for package, folder in declared["package-dir"].items():
        target = tmp_path.joinpath(*package.split("."))
        shutil.copytree(ROOT / folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    code = "from streamapp.config import shipped; print(*(shipped(f) for f in ('pipelines', 'models', 'schemas', 'languages')), sep='\\n')"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, check=True, capture_output=True, text=True, timeout=60)
    folders = ("pipelines", "models", "schemas", "languages")
    assert done.stdout.split() == [str(tmp_path / "streamapp" / "share" / folder) for folder in folders]


def test_a_wheel_takes_every_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    present = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "streamapp").rglob("__init__.py")}
    assert {name for name in declared["packages"] if ".share." not in name} == present
