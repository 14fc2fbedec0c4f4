"""SASL and TLS under Kafka's names: what reaches Faust and aiokafka, and what is refused with its fix."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from faust.types.auth import AuthProtocol, SASLMechanism

from streamapp.bus.app import build_app
from streamapp.bus.security import client_arguments, credentials
from streamapp.core.errors import ConfigError

USER = {"sasl.username": "worker", "sasl.password": "s3cret"}


def test_plain_text_needs_nothing() -> None:
    assert credentials({}) is None
    assert client_arguments({}) == {"security_protocol": "PLAINTEXT", "ssl_context": None}


def test_scram_over_tls_reaches_faust_and_aiokafka() -> None:
    kafka = {"security.protocol": "SASL_SSL", "sasl.mechanism": "scram-sha-512", **USER}
    given = credentials(kafka)
    assert given is not None
    assert given.protocol is AuthProtocol.SASL_SSL
    assert given.mechanism is SASLMechanism.SCRAM_SHA_512
    assert (given.username, given.password) == ("worker", "s3cret")
    assert "s3cret" not in repr(given)
    arguments = client_arguments(kafka)
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-512"
    assert arguments["sasl_plain_username"] == "worker"
    assert arguments["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    assert arguments["ssl_context"].check_hostname
    assert build_app("x", "127.0.0.1:1", kafka=kafka).conf.broker_credentials.protocol is AuthProtocol.SASL_SSL


def test_sasl_without_tls_carries_no_context() -> None:
    given = credentials({"security.protocol": "SASL_PLAINTEXT", **USER})
    assert given is not None
    assert given.protocol is AuthProtocol.SASL_PLAINTEXT
    assert client_arguments({"security.protocol": "SASL_PLAINTEXT", **USER})["ssl_context"] is None


def test_host_names_are_checked_unless_switched_off() -> None:
    context = client_arguments({"security.protocol": "SSL", "ssl.endpoint.identification.algorithm": "none"})["ssl_context"]
    assert not context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("kafka", "problem"),
    [
        ({"security.protocol": "TLS"}, "security.protocol TLS is not known"),
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": "GSSAPI", **USER}, "sasl.mechanism GSSAPI is not supported"),
        ({"security.protocol": "SASL_SSL", "sasl.username": "worker"}, "needs a user"),
        ({"ssl.truststore.location": "/t.jks"}, "ssl.truststore.location is not known"),
        ({"security.protocol": "SSL", "ssl.ca.location": "/nowhere/ca.pem"}, "a TLS file cannot be read"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(kafka: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        credentials(kafka)


def test_an_unreadable_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("not a certificate")
    with pytest.raises(ConfigError, match="TLS file"):
        credentials({"security.protocol": "SSL", "ssl.certificate.location": str(tmp_path / "cert.pem")})


def test_group_timeouts_come_under_kafkas_names() -> None:
    conf = build_app("x", "a:1, b:2", kafka={"session.timeout.ms": "7000", "heartbeat.interval.ms": "500", "client.id": "w1"}).conf
    assert conf.broker_session_timeout == 7.0
    assert conf.broker_heartbeat_interval == 0.5
    assert conf.broker_client_id == "w1"
    assert [str(url) for url in conf.broker] == ["streamapp://a:1", "streamapp://b:2"]
