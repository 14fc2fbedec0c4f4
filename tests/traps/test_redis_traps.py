"""What redis-py does by default for a server that hangs, and what is asked of it instead (`adapters/redis_line.py`)."""

from __future__ import annotations

from typing import Any

import redis.asyncio

from streamapp.adapters.redis_line import pool_of


def longest_s(connection: Any) -> float:
    """Gives how long one question to a server that hangs takes at least: every try waits for the whole timeout."""
    return float(connection.socket_timeout * (1 + connection.retry.get_retries()))


async def test_the_defaults_wait_a_minute_for_a_server_that_hangs_and_ours_ask_once() -> None:
    stock = redis.asyncio.Redis().connection_pool.make_connection()
    assert longest_s(stock) > 50, "redis-py gives up sooner now"
    ours = pool_of("redis://127.0.0.1:1/0", 0.05).make_connection()
    assert longest_s(ours) == ours.socket_connect_timeout == 0.05
