"""Documents (what a TOML file says) to typed records: every key is checked and all mistakes are told at once, each with its line."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from streamapp.core.errors import ConfigError


@dataclass(slots=True)
class Mistakes:
    """Collects what is wrong in one document; `lines` maps a key's path to its line where the text is known."""

    source: str
    lines: Mapping[str, int] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)

    def add(self, path: str, problem: str) -> None:
        """Notes one mistake at `path` ("event.fields.text.type", "rules[2].when"); told with the nearest line that is known."""
        line = self.line_of(path)
        self.found.append(f"{f'line {line}: ' if line else ''}{path}: {problem}")

    def line_of(self, path: str) -> int | None:
        """Gives the line of `path`, else of the closest table around it, else None."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return None

    def raise_if_any(self) -> None:
        """Raises ConfigError that lists every mistake."""
        if self.found:
            count = "1 mistake" if len(self.found) == 1 else f"{len(self.found)} mistakes"
            raise ConfigError("\n  ".join([f"{self.source}: {count}", *self.found]))


def nearest(name: str, known: Iterable[str]) -> str:
    """Gives " (did you mean `x`?)" for the closest known name, else what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f" (did you mean `{close[0]}`?)"
    return f" (known: {', '.join(names)})" if names else ""


def read(kind: Any, value: Any, path: str, mistakes: Mistakes) -> Any:
    """Takes a document's value and the type it must have; gives the typed value, or None after noting what is wrong with it.

    A table with wrong entries comes back with defaults (None where there is none) in their place, so that the rest is still checked.
    """
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _read_table(kind, value, path, mistakes)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        tables = [one for one in arguments if isinstance(one, type) and issubclass(one, msgspec.Struct)]
        if tables:
            return _read_table(tables[0], value, path, mistakes)
    if origin is dict and isinstance(value, dict):
        return {name: read(arguments[1], item, _join(path, name), mistakes) for name, item in value.items()}
    if origin is tuple and arguments[-1] is Ellipsis and isinstance(value, list):
        return tuple(read(arguments[0], item, f"{path}[{place}]", mistakes) for place, item in enumerate(value))
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as failure:
        mistakes.add(path, f"{_shown(value)} is wrong: {_wanted(kind, value, str(failure))}")
        return None


def _read_table(kind: type[msgspec.Struct], value: Any, path: str, mistakes: Mistakes) -> Any:
    fields = {info.encode_name: info for info in msgspec.structs.fields(kind)}
    if not isinstance(value, dict):
        mistakes.add(path, f"{_shown(value)} is wrong: expected a table")
        return kind(**{info.name: None for info in fields.values() if info.required})
    for name in value:
        if name not in fields:
            mistakes.add(_join(path, name), f"unknown key `{name}`{nearest(name, fields)}")
    given: dict[str, Any] = {}
    for name, info in fields.items():
        if name in value:
            before = len(mistakes.found)
            given[info.name] = read(info.type, value[name], _join(path, name), mistakes)
            if given[info.name] is None and len(mistakes.found) > before and not info.required:
                del given[info.name]
        elif info.required:
            mistakes.add(_join(path, name), f"is missing; add `{name} = ...`")
            given[info.name] = None
    return kind(**given)


def _wanted(kind: Any, value: Any, failure: str) -> str:
    for one in (kind, *typing.get_args(kind)):
        if typing.get_origin(one) is typing.Literal:
            choices = [str(choice) for choice in typing.get_args(one)]
            kinds = [other.__name__ for other in typing.get_args(kind) if isinstance(other, type) and other is not type(None)]
            listed = ", ".join([*(f'"{choice}"' for choice in choices), *(f"a {name}" for name in kinds)])
            return f"expected one of {listed}{nearest(value, choices) if isinstance(value, str) else ''}"
    return failure.replace("`", "").replace("Expected", "expected", 1)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=(.*)$""")


def key_lines(text: str) -> dict[str, int]:
    """Takes the text of a TOML file that parses; gives key path -> line (from 1) for tables and keys, one path per array item."""
    lines: dict[str, int] = {}
    table, counts, open_brackets, fence = "", dict[str, int](), 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if fence:
            fence = "" if fence in line else fence
            continue
        if open_brackets > 0:
            open_brackets += _depth(line)
            continue
        if header := _HEADER.match(line):
            table = _plain(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = f"{table}[{counts[table]}]"
            else:
                for array in sorted(counts, key=len, reverse=True):  # a table below the latest item of an array
                    if table.startswith(f"{array}."):
                        table = f"{array}[{counts[array]}]{table[len(array) :]}"
                        break
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault(_join(table, _plain(key[1])), number)
            rest = key[2]
            quotes = [mark for mark in ('"""', "'''") if rest.count(mark) % 2]
            fence = quotes[0] if quotes else ""
            open_brackets = 0 if fence else max(_depth(rest), 0)
    return lines


def _plain(dotted: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in dotted.split("."))


def _depth(line: str) -> int:
    bare = re.sub(r""""(?:\\.|[^"\\])*"|'[^']*'|#.*$""", "", line)
    return bare.count("[") + bare.count("{") - bare.count("]") - bare.count("}")


def overlaid(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Gives `base` with what `own` says: tables key by key, entries of arrays of tables by their `code` or `name`, all else replaced.

    An entry that the base has not stands behind its entries; where `own` names all of the base's, its own order holds.
    """
    found = dict(base)
    for key, value in own.items():
        before = found.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            found[key] = overlaid(before, value)
        elif _entries(before) and _entries(value):
            placed = {_identity(entry): entry for entry in before or ()}
            for entry in value:
                name = _identity(entry)
                placed[name] = overlaid(placed[name], entry) if name in placed else entry
            order = [_identity(entry) for entry in value]
            found[key] = [placed[name] for name in (order if set(order) >= set(placed) else placed)]
        else:
            found[key] = value
    return found


def _entries(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(isinstance(entry, Mapping) for entry in value)


def _identity(entry: Mapping[str, Any]) -> str:
    return str(entry.get("code", entry.get("name", id(entry))))
