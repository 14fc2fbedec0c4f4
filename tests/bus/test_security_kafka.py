"""SASL over TLS on a real Apache Kafka: the ordinary commands and a worker log in, and nobody else does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

ROOT = Path(__file__).resolve().parents[2]
KAFKA = ROOT / "ops/kafka/kafka"
PASSWORD, STORE = "open, sesame", "changeit"
EVENTS = 40

pytestmark = pytest.mark.kafka


class Guarded(NamedTuple):
    """A broker that lets nobody in without a password, and the certificate of the authority that signed its own."""

    address: str
    authority: Path

    def environment(self, mechanism: str, password: str = PASSWORD) -> dict[str, str]:
        """Gives the environment in which commands log in, as an operator would set it."""
        secret = self.authority.parent / f"{mechanism}.password"
        secret.write_text(password + "\n")
        return {
            "STREAMAPP_BOOTSTRAP": self.address, "STREAMAPP_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "STREAMAPP_KAFKA_SASL_MECHANISM": mechanism, "STREAMAPP_KAFKA_SASL_USERNAME": "worker",
            "STREAMAPP_KAFKA_SASL_PASSWORD_FILE": str(secret), "STREAMAPP_KAFKA_SSL_CA_LOCATION": str(self.authority),
        }  # fmt: skip


@pytest.fixture(scope="module")
def guarded(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A node of its own beside the one of the run, whose presence says that Kafka's jars and Java are there."""
    del kafka
    folder = tmp_path_factory.mktemp("guarded")
    store, authority = folder / "broker.p12", folder / "authority.pem"
    keytool = ["keytool", "-keystore", str(store), "-storetype", "PKCS12", "-storepass", STORE, "-alias", "broker"]
    name = ["-dname", "CN=localhost", "-ext", "SAN=ip:127.0.0.1,dns:localhost", "-keyalg", "RSA", "-validity", "2"]
    subprocess.run([*keytool, "-genkeypair", *name], check=True, capture_output=True)
    subprocess.run([*keytool, "-exportcert", "-rfc", "-file", str(authority)], check=True, capture_output=True)
    plain, control, port = (_free_port() for _ in range(3))
    login = "org.apache.kafka.common.security.{}"
    settings = {
        "listeners": f"PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{control},SASL_SSL://127.0.0.1:{port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "ssl.keystore.type": "PKCS12", "ssl.keystore.location": str(store), "ssl.keystore.password": STORE, "ssl.key.password": STORE,
        "listener.name.sasl_ssl.plain.sasl.jaas.config": login.format(f'plain.PlainLoginModule required user_worker="{PASSWORD}";'),
        "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": login.format("scram.ScramLoginModule required;"),
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": login.format("scram.ScramLoginModule required;"),
    }  # fmt: skip
    node = ["--port", str(plain), "--controller-port", str(control), "--dir", str(folder / "node"), "--heap", "400m"]
    said = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    subprocess.run([str(KAFKA), "start", *node, *said], check=True, capture_output=True, timeout=120)
    try:
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{plain}"})
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            login_as = UserScramCredentialUpsertion("worker", ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
            for done in admin.alter_user_scram_credentials([login_as]).values():
                done.result(30)
        yield Guarded(f"127.0.0.1:{port}", authority)
    finally:
        subprocess.run([str(KAFKA), "stop", *node], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_events_are_decided_by_a_worker_that_logs_in_over_tls(guarded: Guarded, namespace: str, mechanism: str, tmp_path: Path) -> None:
    environment = guarded.environment(mechanism)
    here = ["--pipeline", "messages", "--namespace", namespace]
    _run(environment, "topics", "create", *here, "--partitions", "2")
    events = tmp_path / "events.jsonl"
    events.write_text(_run(environment, "generate", "--events", str(EVENTS), "--garbage", "0"))
    _run(environment, "produce", *here, str(events))
    command = [sys.executable, "-m", "streamapp", "worker", *here, "--metrics-port", "0", "--until-stdin-closes"]
    log = (tmp_path / "worker.log").open("wb")
    worker = subprocess.Popen(command, env=_environ(environment), stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=ROOT)
    try:
        told = _run(environment, "consume", *here, "--from-beginning", "--most", str(EVENTS), "--json")
    finally:
        worker.communicate(timeout=30)
        log.close()
    assert worker.returncode == 0, (tmp_path / "worker.log").read_text()
    assert PASSWORD not in (tmp_path / "worker.log").read_text()
    verdicts = [json.loads(line) for line in told.splitlines()]
    assert len({verdict["event_id"] for verdict in verdicts}) == len(verdicts) == EVENTS


def test_a_wrong_password_is_refused_by_name(guarded: Guarded, namespace: str) -> None:
    refused = _command(guarded.environment("SCRAM-SHA-512", "wrong"), *_CREATE, "--namespace", namespace)
    assert refused.returncode != 0
    assert "refuses the login of worker by SCRAM-SHA-512" in refused.stderr
    assert "wrong" not in refused.stderr


def test_a_broker_whose_authority_is_not_known_is_refused_by_name(guarded: Guarded, namespace: str) -> None:
    environment = guarded.environment("PLAIN")
    del environment["STREAMAPP_KAFKA_SSL_CA_LOCATION"]
    refused = _command(environment, *_CREATE, "--namespace", namespace)
    assert refused.returncode != 0
    assert "cannot agree on TLS" in refused.stderr
    assert "ssl.ca.location" in refused.stderr


_CREATE = ("topics", "create", "--pipeline", "messages")


def _environ(more: Mapping[str, str]) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)} | dict(more)


def _command(environment: Mapping[str, str], *words: str, timeout_s: float = 90) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamapp", *words]
    return subprocess.run(command, check=False, env=_environ(environment), capture_output=True, text=True, timeout=timeout_s, cwd=ROOT)


def _run(environment: Mapping[str, str], *words: str) -> str:
    found = _command(environment, *words)
    assert found.returncode == 0, found.stderr
    return found.stdout


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
