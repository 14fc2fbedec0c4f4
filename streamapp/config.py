"""Every setting once, with its unit, default and origin; this is the only reader of the environment.

A value comes from the command line, else from `STREAMAPP_<NAME>`, else from the default. A secret may also come from a file:
`STREAMAPP_<NAME>_FILE` names it. What a Kafka client needs keeps Kafka's names, in a properties file or as
`STREAMAPP_KAFKA_<NAME>` with underscores for dots, the environment first.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamapp.core.document import Mistakes, nearest, overlaid
from streamapp.core.errors import ConfigError
from streamapp.core.spec import PipelineSpec, parse_spec

PREFIX = "STREAMAPP_"
KAFKA_PREFIX = "STREAMAPP_KAFKA_"
#: Variables that begin like ours and belong to the tests.
TEST_VARIABLES = re.compile(r"STREAMAPP_(DATA|TEST_\w+)")
HIDDEN = "***"
DEVELOPMENT_KEY = "streamapp-development-key"


class Secret(str):
    """Text that is used as it is and shown as *** wherever values are printed for people: repr, tables, tracebacks with locals."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{HIDDEN}'"


class KafkaSettings(dict[str, str]):
    """Settings of a Kafka client by Kafka's names; printing it hides the secret ones."""

    def __repr__(self) -> str:
        return repr({key: HIDDEN if is_secret(key) else value for key, value in self.items()})

    __str__ = __repr__


def _one_of(*known: str) -> Callable[[str], str]:
    def check(given: str) -> str:
        if given not in known:
            raise ValueError(f"is not one of {', '.join(known)}")
        return given

    return check


def _whole(low: int, high: int) -> Callable[[str], int]:
    def check(given: str) -> int:
        if not re.fullmatch(r"-?\d{1,18}", given) or not low <= int(given) <= high:
            raise ValueError(f"is not a whole number from {low:,} to {high:,}")
        return int(given)

    return check


def _number(low: float, high: float) -> Callable[[str], float]:
    def check(given: str) -> float:
        try:
            value = float(given)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:  # NaN fails too
            raise ValueError(f"is not a number from {low:g} to {high:g}")
        return value

    return check


def _servers(given: str) -> str:
    for server in given.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"names no server as HOST:PORT: {server.strip()!r}; write for example 127.0.0.1:9092")
    return ",".join(server.strip() for server in given.split(","))


def _namespace(given: str) -> str:
    if given and not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}", given):
        raise ValueError("is no prefix of Kafka topic names: use up to 200 letters, digits, dots, dashes and underscores")
    return given


def _key(given: str) -> Secret:
    if not 16 <= len(given.encode()) <= 64:
        raise ValueError("has to be 16 to 64 bytes long; make one with: openssl rand -hex 32")
    return Secret(given)


def _redis(given: str) -> Secret:
    if given and not re.fullmatch(r"(rediss?://|unix:///)\S+", given):
        raise ValueError("is no Redis URL; write for example redis://127.0.0.1:6379/0, or rediss://:PASSWORD@HOST:PORT/0")
    return Secret(given)


def _text(given: str) -> str:
    if not given.strip():
        raise ValueError("is empty")
    return given


def _setting(default: Any, check: Callable[[str], Any], about: str, unit: str = "", *, secret: bool = False) -> Any:
    return field(default=default, metadata={"check": check, "about": about, "unit": unit, "secret": secret})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a process needs to know beside its pipeline file; made by `load_settings`, never changed."""

    bootstrap: str = _setting("127.0.0.1:9092", _servers, "Kafka servers to begin with, HOST:PORT[,HOST:PORT…]")
    pipeline: str = _setting("messages", _text, "pipeline by name, or the path of its file")
    namespace: str = _setting("", _namespace, "first part of all topic names and the consumer group; empty: what the pipeline file says")
    events_topic: str = _setting("", _namespace, "topic of the events where it was there before us; empty: NAMESPACE.events.v1")
    models: str = _setting("", str, "directory of the models; empty: the one that came with the program")
    language: str = _setting("", str, "language of reasons, a name below languages/ or a .toml file; empty: the pipeline file's own")
    partitions: int = _setting(4, _whole(1, 10_000), "partitions of the topics that `topics create` makes")
    replicas: int = _setting(0, _whole(0, 15), "copies of each partition; 0: three, or as many as there are brokers")
    delivery: str = _setting(
        "at_least_once", _one_of("at_least_once", "exactly_once"),
        "what a verdict is worth: exactly_once puts it into a Kafka transaction with its state; one kind for all workers of a group",
    )  # fmt: skip
    transaction_ms: int = _setting(50, _whole(0, 10_000), "exactly once: how long events gather before their transaction commits", "ms")
    decisions_compression: str = _setting(
        "none", _one_of("none", "zstd"), "how the decisions log is written: zstd is ten times smaller, at 3 to 5 µs of the worker per event"
    )
    batch_max: int = _setting(8192, _whole(1, 65_536), "events in one micro-batch at most; above 2,048 as decide_ms_max allows", "records")
    batch_wait_ms: int = _setting(3, _whole(0, 1000), "wait for more events while traffic is thin; a lonely event never waits", "ms")
    fetch_wait_ms: int = _setting(50, _whole(1, 10_000), "long poll of an idle partition; its answer comes with the first event", "ms")
    partition_fetch_bytes: int = _setting(1 << 20, _whole(1 << 16, 1 << 26), "fetched from one partition at once", "bytes")
    in_flight_batches_max: int = _setting(32, _whole(1, 64), "micro-batches decided and not yet acknowledged", "batches")
    in_flight_records_max: int = _setting(8192, _whole(1, 1 << 20), "events not yet acknowledged; or four large micro-batches", "records")
    state_snapshot_rows: int = _setting(2_000_000, _whole(1, 1 << 31), "events after which a partition's state is saved whole", "records")
    state_snapshot_s: float = _setting(300.0, _number(0.1, 86_400), "seconds after which it is, where there were events", "s")
    decide_ms_max: int = _setting(20, _whole(1, 1000), "what a micro-batch of more than 2,048 events may hold the event loop", "ms")
    revoke_wait_ms: int = _setting(5000, _whole(0, 60_000), "what a rebalance waits for micro-batches in flight, within the session", "ms")
    drain_timeout_s: float = _setting(10.0, _number(0, 600), "what SIGTERM waits for micro-batches in flight", "s")
    redis: str = _setting(
        Secret(""), _redis, "URL of the Redis that workers share windows of ip, device or terminal through; empty: every worker for itself",
        secret=True,
    )  # fmt: skip
    redis_deadline_ms: int = _setting(50, _whole(1, 1000), "what a micro-batch waits for Redis before its features are missing", "ms")
    profiles_redis: str = _setting(
        Secret(""), _redis, "URL of the Redis that profiles are read from; empty: the one of the shared windows", secret=True
    )
    profiles_ttl_s: float = _setting(3600.0, _number(1, 604_800), "a profile that was read is believed for so long, within 10 %", "s")
    profiles_unknown_ttl_s: float = _setting(60.0, _number(0.1, 86_400), "and an entity without a profile for so long", "s")
    profiles_stale_s: float = _setting(86_400.0, _number(0, 2_592_000), "how much longer a profile is used while Redis is down", "s")
    profiles_kept: int = _setting(200_000, _whole(131_072, 1 << 27), "profiles kept in one worker at most", "entities")
    metrics_host: str = _setting("127.0.0.1", _text, "address of metrics and health; 0.0.0.0 shows them to other machines")
    metrics_port: int = _setting(9464, _whole(0, 65_535), "port of metrics and health; 0: one that is free")
    log_level: str = _setting("info", _one_of("debug", "info", "warning", "error"), "what is logged")
    entity_key: str = _setting(
        Secret(DEVELOPMENT_KEY), _key, "key that entity ids are hashed under in verdicts; one for all workers, for ever", secret=True
    )
    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    origins: Mapping[str, str] = field(default_factory=dict, repr=False)

    def warnings(self) -> list[str]:
        """Gives what works and is not meant for production, one sentence each."""
        if self.entity_key != DEVELOPMENT_KEY:
            return []
        problem = "entity_key is the published development key: whoever knows an id finds it in the verdicts"
        return [f"{problem}; set STREAMAPP_ENTITY_KEY_FILE to a file with 16 to 64 bytes that only the workers can read"]

    def rows(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Gives (name, value, unit, origin, what it is) of every setting, secrets hidden: for `config show` and the documentation."""
        for name, metadata in _declared().items():
            value = HIDDEN if metadata["secret"] else str(getattr(self, name))
            yield name, value, metadata["unit"], self.origins.get(name, "default"), metadata["about"]
        for key in sorted(self.kafka):
            value = HIDDEN if is_secret(key) else self.kafka[key]
            yield key, value, "ms" if key.endswith(".ms") else "", self.origins.get(key, "default"), KAFKA[key].about


@dataclass(frozen=True, slots=True)
class _KafkaSetting:
    about: str
    check: Callable[[str], Any] = str
    secret: bool = False


_MILLISECONDS = _whole(1, 2**31 - 1)
#: What may be said about the Kafka client, under Kafka's (librdkafka's) names.
KAFKA: Mapping[str, _KafkaSetting] = {
    "bootstrap.servers": _KafkaSetting("servers to begin with; --bootstrap and STREAMAPP_BOOTSTRAP come first", _servers),
    "security.protocol": _KafkaSetting("how to talk to brokers", _one_of("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")),
    "sasl.mechanism": _KafkaSetting("how to log in", _one_of("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")),
    "sasl.username": _KafkaSetting("who logs in"),
    "sasl.password": _KafkaSetting("and with what", secret=True),
    "ssl.ca.location": _KafkaSetting("PEM file of the authority that signed the brokers' certificates; the system's own without it"),
    "ssl.certificate.location": _KafkaSetting("PEM file of our certificate, where brokers ask for one"),
    "ssl.key.location": _KafkaSetting("PEM file of its private key"),
    "ssl.key.password": _KafkaSetting("opens the private key", secret=True),
    "ssl.endpoint.identification.algorithm": _KafkaSetting("none: the broker's name is not checked", _one_of("https", "none", "")),
    "client.id": _KafkaSetting("name of this client in the brokers' logs and quotas"),
    "group.instance.id": _KafkaSetting("static membership: a restart within the session keeps the partitions"),
    "check.crcs": _KafkaSetting("checksum every record batch that is read (default false)", _one_of("true", "false")),
    "auto.offset.reset": _KafkaSetting("where a group without a position begins", _one_of("earliest", "latest")),
    "session.timeout.ms": _KafkaSetting("a worker that is silent for so long loses its partitions (default 10000)", _MILLISECONDS),
    "heartbeat.interval.ms": _KafkaSetting("between two signs of life (default 1000)", _MILLISECONDS),
    "max.poll.interval.ms": _KafkaSetting("a worker that is stuck for so long leaves the group (default 300000)", _MILLISECONDS),
    "request.timeout.ms": _KafkaSetting("a broker that is silent for so long is given up (default 30000)", _MILLISECONDS),
}
#: Names that Kafka users bring from Java, and what does the same here.
_FROM_JAVA = {
    "sasl.jaas.config": "set sasl.username and sasl.password instead",
    "ssl.truststore.location": "export the authority as PEM and set ssl.ca.location",
    "ssl.truststore.password": "PEM files of authorities need none; leave it out",
    "ssl.keystore.location": "export certificate and key as PEM and set ssl.certificate.location and ssl.key.location",
    "ssl.keystore.password": "set ssl.key.password if the PEM key has one",
}


def is_secret(key: str) -> bool:
    """Gives whether the Kafka setting's value is never shown; unknown names that sound like secrets count."""
    known = KAFKA.get(key)
    return known.secret if known else bool(re.search(r"password|secret|jaas|token", key))


def load_settings(
    options: Mapping[str, Any] | None = None, *, kafka_config: Path | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Takes command line options by setting name (None: not given), a Kafka properties file and an environment (None: the process's).

    Raises ConfigError that lists every wrong value with its key and the fix, and never shows a secret.
    """
    environ = os.environ if environ is None else environ
    mistakes = Mistakes("settings")
    given = _read_environment(environ, mistakes)
    given |= {name: (str(value), f"--{name.replace('_', '-')}") for name, value in (options or {}).items() if value is not None}
    if kafka_config is None and environ.get(f"{KAFKA_PREFIX}CONFIG"):
        kafka_config = Path(environ[f"{KAFKA_PREFIX}CONFIG"])
    kafka = _read_properties(kafka_config, mistakes) | _read_kafka_environment(environ, mistakes)
    if "bootstrap.servers" in kafka:
        given.setdefault("bootstrap", kafka.pop("bootstrap.servers"))
    values: dict[str, Any] = {}
    for name, metadata in _declared().items():
        if name in given:
            values[name] = _checked(name, *given[name], metadata["check"], metadata["secret"], mistakes)
    checked = KafkaSettings()
    for key, (text, origin) in kafka.items():
        if key not in KAFKA:
            way_out = _FROM_JAVA.get(key) or f"leave it out{nearest(key, KAFKA)}"
            mistakes.add(key, f"is no setting of the Kafka client ({origin}): {way_out}")
        else:
            _checked(key, text, origin, KAFKA[key].check, KAFKA[key].secret, mistakes)
            checked[key] = Secret(text) if KAFKA[key].secret else text
    mistakes.raise_if_any()
    origins = {name: origin for name, (_, origin) in (given | kafka).items()}
    return Settings(**values, kafka=checked, origins=origins)


def shipped(folder: str) -> Path:
    """Gives a directory (`pipelines`, `languages`) that came with the program: beside it in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / folder
    return checkout if checkout.is_dir() and (package.parent / "pyproject.toml").is_file() else package / "share" / folder


def models_directory(settings: Settings) -> Path:
    """Gives the directory of all pipelines' models."""
    return Path(settings.models) if settings.models else shipped("models")


def _declared() -> dict[str, Mapping[str, Any]]:
    return {one.name: one.metadata for one in dataclasses.fields(Settings) if one.metadata}


def _checked(key: str, text: str, origin: str, check: Callable[[str], Any], secret: bool, mistakes: Mistakes) -> Any:
    try:
        return check(text)
    except ValueError as wrong:
        mistakes.add(key, f"{HIDDEN if secret else repr(text)} ({origin}) {wrong}")
        return None


def _read_environment(environ: Mapping[str, str], mistakes: Mistakes) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    variables = {f"{PREFIX}{name.upper()}": name for name in _declared()}
    for variable, value in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable.startswith(KAFKA_PREFIX) or TEST_VARIABLES.fullmatch(variable):
            continue
        name = variables.get(variable) or variables.get(variable.removesuffix("_FILE"))
        if name is None:
            mistakes.add(variable, f"is no setting{nearest(variable, variables)}")
        elif variable in variables:
            found[name] = value, variable
        elif _declared()[name]["secret"]:
            _put_secret(found, name, variable, value, mistakes)
        else:
            mistakes.add(variable, f"{name} is no secret and is not read from a file; set {variable.removesuffix('_FILE')}")
    return found


def _read_kafka_environment(environ: Mapping[str, str], mistakes: Mistakes) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for variable, value in sorted(environ.items()):
        if not variable.startswith(KAFKA_PREFIX) or variable == f"{KAFKA_PREFIX}CONFIG":
            continue
        key = variable.removeprefix(KAFKA_PREFIX).lower().replace("_", ".")
        if key.endswith(".file"):
            _put_secret(found, key.removesuffix(".file"), variable, value, mistakes)
        else:
            found[key] = value, variable
    return found


def _put_secret(found: dict[str, tuple[str, str]], name: str, variable: str, path: str, mistakes: Mistakes) -> None:
    if name in found:
        mistakes.add(variable, f"says {name} a second time; keep either it or {found[name][1]}")
        return
    try:
        found[name] = Path(path).read_text(encoding="utf-8").rstrip("\r\n"), variable
    except (OSError, UnicodeDecodeError) as failure:
        mistakes.add(variable, f"{path} cannot be read: {_reason(failure)}")


def _reason(failure: OSError | UnicodeDecodeError) -> str:
    return "it is not UTF-8" if isinstance(failure, UnicodeDecodeError) else str(failure.strerror)


def _read_properties(path: Path | None, mistakes: Mistakes) -> dict[str, tuple[str, str]]:
    """Reads the part of Java's format that client files use: `key=value` or `key: value`, # and ! comments, \\ at a line's end."""
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        raise ConfigError(
            f"{path} cannot be read: {_reason(failure)}", "Name a file of Kafka client settings, one key=value a line"
        ) from failure
    found = {}
    for number, line in enumerate(re.sub(r"\\\r?\n[ \t]*", "", text).splitlines(), 1):
        line = line.strip()
        if not line or line[0] in "#!":
            continue
        match = re.fullmatch(r"([^=:\s]+)\s*[=:]\s*(.*)", line)
        if match is None:
            mistakes.add(f"{path}:{number}", "is neither key=value nor a comment")
        else:
            found[match[1]] = re.sub(r"\\(.)", r"\1", match[2]), str(path)
    return found


def fail_point(environ: Mapping[str, str] | None = None) -> tuple[str, int]:
    """Gives the step at whose n-th turn a worker under test ends as if killed (STREAMAPP_TEST_FAIL_AT=step[:n]); "" without one."""
    step, _, turn = ((os.environ if environ is None else environ).get("STREAMAPP_TEST_FAIL_AT") or "").partition(":")
    return step, int(turn or 1)


def load_pipeline(name_or_path: str) -> PipelineSpec:
    """Takes a pipeline's name or the path of its file; gives its spec.

    A path is read as given; a name is looked up in ./pipelines, then in what came with the program. Raises ConfigError.
    """
    path, text, document = _pipeline_file(name_or_path, ())
    from streamapp.core.ruling import check_ruling  # with all that computes features: only where a pipeline is loaded

    return parse_spec(document, str(path), text, check_ruling)


def _pipeline_file(name_or_path: str, behind: tuple[Path, ...]) -> tuple[Path, str, dict[str, Any]]:
    """Gives a pipeline file's path, text and document, the latter on top of what it `extends`; `behind` are the files that extend it."""
    given = Path(name_or_path)
    places = (
        [given] if given.suffix == ".toml" else [folder / f"{name_or_path}.toml" for folder in (Path("pipelines"), shipped("pipelines"))]
    )
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        known = sorted({file.stem for folder in (Path("pipelines"), shipped("pipelines")) for file in folder.glob("*.toml")})
        raise ConfigError(
            f"there is no pipeline {name_or_path}{nearest(name_or_path, known)}", f"known are {', '.join(known)}, or name a .toml file"
        )
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as failure:
        raise ConfigError(f"{path} cannot be read: {_reason(failure)}", "name a readable pipeline file") from failure
    except tomllib.TOMLDecodeError as wrong:
        raise ConfigError(f"{path} is not TOML: {wrong}", "correct the place it names") from wrong
    base = document.get("extends")
    if not isinstance(base, str):
        return path, text, document
    if path.resolve() in behind:
        raise ConfigError(f"{path} extends itself in the end", "name another pipeline in `extends`, or none")
    beside = path.parent / f"{base}.toml"
    _, _, wider = _pipeline_file(str(beside) if beside.is_file() else base, (*behind, path.resolve()))
    return path, "", overlaid(wider, document)  # lines would be those of two files: mistakes are told by key alone
