"""Why no broker answers: aiokafka tries each one, logs what it said, and raises that there was none."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import AuthenticationFailedError, KafkaError, SaslAuthenticationFailed, UnsupportedSaslMechanismError

from streamapp.core.errors import BusError

#: Whoever asks has waited already.
PATIENCE_MS = 3_000
_LOGIN = (AuthenticationFailedError, SaslAuthenticationFailed, UnsupportedSaslMechanismError)


async def unreachable(bootstrap: str, client: Mapping[str, Any] | None, failed: BaseException) -> BusError:
    """Takes where somebody wanted to connect, with which aiokafka client arguments, and how that failed; gives what to tell.

    Asks the servers once more, one by one, until one says what it has against us.
    """
    given = dict(client or {})
    for host, port, _ in collect_hosts(bootstrap):
        try:
            connection = await create_conn(host, port, **{**given, "request_timeout_ms": PATIENCE_MS})
        except _LOGIN as refused:
            user, mechanism = given.get("sasl_plain_username"), given.get("sasl_mechanism")
            why = f"the broker at {host}:{port} refuses the login of {user} by {mechanism}: {refused}"
            return BusError(why, "check sasl.username, sasl.password and sasl.mechanism")
        except ssl.SSLError as refused:
            why = f"the broker at {host}:{port} and we cannot agree on TLS: {refused}"
            return BusError(why, "check ssl.ca.location, security.protocol and --bootstrap")
        except (KafkaError, OSError, TimeoutError):
            continue
        connection.close()
        return BusError(f"the broker at {host}:{port} answers, but not this: {failed!r}", "check it with `streamapp doctor`")
    fix = "check --bootstrap, that the broker runs, and security.protocol and sasl.* if it asks for TLS or a login"
    return BusError(f"no broker answers at {bootstrap}: {str(failed) or type(failed).__name__}", fix)
