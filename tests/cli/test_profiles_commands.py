"""`profiles load`, `refresh` and `show` on a real Redis, and what they refuse with a way out."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from redis import Redis

from tests.redis_server import Server

USERS = [
    {"user_id": "ana", "account_age_days": 400, "is_verified": True, "follower_count": 12, "blocks_received": 1, "messages_sent": 4},
    {"user_id": "ben", "reply_rate": 0.5},
]


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users.jsonl"
    path.write_text("".join(json.dumps(user) + "\n" for user in USERS))
    return path


@pytest.mark.redis
def test_what_is_loaded_is_shown_and_does_not_live_for_ever(call, users: Path, redis_address: str, namespace: str) -> None:
    where = ["--profiles-redis", f"redis://{redis_address}/0", "--namespace", namespace]
    loaded = call("profiles", "load", str(users), *where, "--ttl", "2h", "--json")
    assert loaded.exit_code == 0, loaded.output
    assert json.loads(loaded.output)["written"] == 2
    shown = json.loads(call("profiles", "show", "ana", *where, "--json").output)
    assert shown["features"]["follower_count"] == 12 and shown["features"]["block_rate"] == 0.25
    assert shown["features"]["account_age_days"] == 400 and shown["features"]["reply_rate"] is None
    assert 0 <= shown["stored"]["profile"]["age_s"] < 600
    assert "Nothing is stored of carl" in call("profiles", "show", "carl", *where).output
    host, port = redis_address.split(":")
    with Redis(host=host, port=int(port)) as client:
        lives = [client.pttl(f"{namespace}:profile:{name}") / 3_600_000 for name in ("ana", "ben")]
        assert all(1.7 < hours < 2.3 for hours in lives)
        assert int(client.get(f"{namespace}:profiles:about")) == int(users.stat().st_mtime * 1000)
        client.set(f"{namespace}:profile:ben", "not a profile")
    assert "something else stands here" in call("profiles", "show", "ben", *where).output


@pytest.mark.redis
def test_refresh_loads_what_the_file_says_by_then(call, users: Path, redis_address: str, namespace: str) -> None:
    where = ["--profiles-redis", f"redis://{redis_address}/0", "--namespace", namespace]
    assert call("profiles", "load", str(users), *where).exit_code == 0
    users.write_text('{"user_id": "ana", "follower_count": 99}\nbroken\n')
    again = call("profiles", "refresh", str(users), *where, "--every", "1h", "--runs", "1", "--json")
    assert again.exit_code == 0 and again.output.count('"written":1') == 1
    assert json.loads(call("profiles", "show", "ana", *where, "--json").output)["features"]["follower_count"] == 99
    assert json.loads(call("profiles", "show", "ben", *where, "--json").output)["features"]["reply_rate"] == 0.5


@pytest.mark.redis
def test_a_line_that_is_no_profile_is_told_and_the_exit_code_says_so(call, redis_address: str, namespace: str) -> None:
    where = ["--profiles-redis", f"redis://{redis_address}/0", "--namespace", namespace]
    done = call("profiles", "load", "--csv", "-", *where, stdin="user_id,follower_count,karma\nana,many,1\nben,3,1\n")
    assert done.exit_code == 1
    assert "karma: is read by nobody" in done.output
    assert "line 1: follower_count" in done.output and "1 profiles written" in done.output


@pytest.mark.redis
def test_a_redis_that_hangs_ends_a_load_with_a_sentence(call, users: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamapp.adapters.profiles_redis.WRITE_S", 0.2)
    server.send(signal.SIGSTOP)
    where = ["--profiles-redis", f"redis://127.0.0.1:{server.port}/0"]
    failed = call("profiles", "load", str(users), *where)
    assert failed.exit_code == 2 and "Redis does not take or give profiles" in failed.output and "--profiles-redis" in failed.output
    tried = call("profiles", "refresh", str(users), *where, "--every", "1ms", "--runs", "2")
    assert tried.exit_code == 1 and tried.output.count("the next load is in") == 1
    server.send(signal.SIGCONT)


def test_a_last_run_that_failed_promises_no_next_one_and_the_exit_code_says_so(call, users: Path) -> None:
    tried = call("profiles", "refresh", str(users), "--profiles-redis", "redis://127.0.0.1:1/0", "--runs", "1")
    assert tried.exit_code == 1 and "Redis does not take or give profiles" in tried.output
    assert "next load" not in tried.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["load", "FILE"], "no Redis is named"),
        (["show", "ana"], "no Redis is named"),
        (["refresh", "-", "--profiles-redis", "redis://127.0.0.1:1/0"], "cannot be read a second time"),
        (["load", "FILE", "--pipeline", "payments", "--profiles-redis", "redis://127.0.0.1:1/0"], "declares no profile feature"),
        (["load", "FILE", "--profiles-redis", "redis://127.0.0.1:1/0"], "Redis does not take or give profiles"),
        (["load", "FILE", "--profiles-redis", "127.0.0.1:1"], "is no Redis URL"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_way_out(call, users: Path, arguments: list[str], says: str) -> None:
    done = call("profiles", *(str(users) if argument == "FILE" else argument for argument in arguments))
    assert done.exit_code == 2 and says.lower() in done.output.lower()
    assert any(word in done.output for word in ("Fix:", "write for example"))
