"""Options that several commands share; each is a setting, declared in config.py and told here with the same words."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from streamapp.config import PREFIX, Settings, load_settings

Command = TypeVar("Command", bound=Callable[..., Any])

_DECLARED = {one.name: one for one in dataclasses.fields(Settings) if one.metadata}
#: Settings of which the shell should offer values.
_TYPES: dict[str, Any] = {
    "log_level": click.Choice(["debug", "info", "warning", "error"]),
    "delivery": click.Choice(["at_least_once", "exactly_once"]),
    "models": click.Path(file_okay=False, path_type=Path),
}


def settings(*names: str, kafka: bool = False) -> Callable[[Command], Command]:
    """Adds one option per setting name, and --kafka-config with `kafka`; the command gets one argument `settings`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_settings(**arguments: Any) -> Any:
            given = {name: arguments.pop(name) for name in names}
            kafka_config = arguments.pop("kafka_config") if kafka else None
            return command(settings=load_settings(given, kafka_config=kafka_config), **arguments)

        decorated: Any = with_settings
        if kafka:
            about = "Kafka client settings (security.protocol, sasl.username …), one key=value a line."
            decorated = click.option("--kafka-config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=about)(decorated)
        for name in reversed(names):
            decorated = _option(name)(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def _option(name: str) -> Callable[[Any], Any]:
    one = _DECLARED[name]
    about = str(one.metadata["about"])
    shown = f"{about[:1].upper()}{about[1:]}."
    default = f" [default: {one.default}]" if one.default not in ("", 0) else ""
    metavar = None if name in _TYPES else "HOST:PORT" if name == "bootstrap" else "NAME|FILE" if name == "pipeline" else "VALUE"
    return click.option(
        f"--{name.replace('_', '-')}",
        name,
        type=_TYPES.get(name, str),
        metavar=metavar,
        default=None,
        help=f"{shown} Or {PREFIX}{name.upper()}.{default}",
    )


json_output = click.option("--json", "as_json", is_flag=True, help="Machine output: JSON on stdout.")


def beside_events(command: Command) -> Command:
    """Adds --labels and --list to a command; it gets `labels`, paths, and `lists`, "NAME=FILE"."""
    with_lists = click.option(
        "--list",
        "lists",
        multiple=True,
        metavar="NAME=FILE",
        help="What is on a list: a file as `streamapp lists import` reads; repeatable.",
    )(command)
    return click.option(
        "--labels",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        multiple=True,
        metavar="FILE",
        help="Labels as on the labels topic, known from labelled_at on; repeatable.",
    )(with_lists)
