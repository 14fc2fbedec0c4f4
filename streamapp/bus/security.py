"""SASL and TLS under the names Kafka users know, turned into Faust credentials and aiokafka arguments."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from faust.auth import SASLCredentials, SSLCredentials
from faust.types.auth import CredentialsT

from streamapp.core.errors import ConfigError

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
KNOWN = (
    "security.protocol",
    "sasl.mechanism",
    "sasl.username",
    "sasl.password",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.endpoint.identification.algorithm",
)


def tls_context(kafka: Mapping[str, str]) -> ssl.SSLContext | None:
    """Gives the TLS context that `ssl.*` describes; None when the protocol has no TLS. Raises ConfigError on unreadable files."""
    if not _protocol(kafka).endswith("SSL"):
        return None
    try:
        context = ssl.create_default_context(cafile=kafka.get("ssl.ca.location") or None)
        certificate = kafka.get("ssl.certificate.location")
        if certificate:
            context.load_cert_chain(certificate, kafka.get("ssl.key.location") or None, kafka.get("ssl.key.password") or None)
    except (OSError, ssl.SSLError) as unreadable:
        fix = "check ssl.ca.location, ssl.certificate.location, ssl.key.location and ssl.key.password"
        raise ConfigError(f"a TLS file cannot be read: {unreadable}", fix) from unreadable
    if kafka.get("ssl.endpoint.identification.algorithm", "https") in ("", "none"):
        context.check_hostname = False
    return context


def credentials(kafka: Mapping[str, str]) -> CredentialsT | None:
    """Takes `security.protocol`, `sasl.*`, `ssl.*`; gives Faust's `broker_credentials`, None for plain text. Raises ConfigError."""
    for key in kafka:
        if key.startswith(("sasl.", "ssl.", "security.")) and key not in KNOWN:
            raise ConfigError(f"Kafka setting {key} is not known", f"known are {', '.join(KNOWN)}")
    protocol, context = _protocol(kafka), tls_context(kafka)
    if protocol.startswith("SASL"):
        mechanism = kafka.get("sasl.mechanism", "PLAIN").upper()
        if mechanism not in MECHANISMS:
            raise ConfigError(f"sasl.mechanism {mechanism} is not supported", f"use one of {', '.join(MECHANISMS)}")
        if not kafka.get("sasl.username") or not kafka.get("sasl.password"):
            raise ConfigError(f"security.protocol {protocol} needs a user", "set sasl.username and sasl.password")
        return SASLCredentials(
            username=kafka["sasl.username"],
            password=kafka["sasl.password"],
            ssl_context=context,
            mechanism=mechanism,
        )
    return SSLCredentials(context) if context is not None else None


def client_arguments(kafka: Mapping[str, str]) -> dict[str, Any]:
    """Gives the same as keyword arguments of an aiokafka client of one's own."""
    protocol = _protocol(kafka)
    arguments: dict[str, Any] = {"security_protocol": protocol, "ssl_context": tls_context(kafka)}
    if protocol.startswith("SASL"):
        credentials(kafka)  # raises what is missing
        arguments["sasl_mechanism"] = kafka.get("sasl.mechanism", "PLAIN").upper()
        arguments["sasl_plain_username"], arguments["sasl_plain_password"] = kafka["sasl.username"], kafka["sasl.password"]
    return arguments


def _protocol(kafka: Mapping[str, str]) -> str:
    protocol = kafka.get("security.protocol", "PLAINTEXT").upper()
    if protocol not in PROTOCOLS:
        raise ConfigError(f"security.protocol {protocol} is not known", f"use one of {', '.join(PROTOCOLS)}")
    return protocol
