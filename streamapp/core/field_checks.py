"""What may be wrong with the declared fields of an event: names, bounds, patterns, defaults."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from streamapp.core.document import Mistakes
from streamapp.core.patterns import compile_pattern

if TYPE_CHECKING:
    from streamapp.core.spec import FieldSpec

FIELD_KINDS = ("id", "text", "string", "json", "number", "integer", "boolean")

#: Fields every event has beside the declared ones; `specversion` at the top level says that an object is a CloudEvent.
IMPLICIT_FIELDS = ("event_id", "event_time", "tenant")
RESERVED_FIELDS = frozenset((*IMPLICIT_FIELDS, "specversion"))


def check_fields(fields: Mapping[str, FieldSpec], mistakes: Mistakes) -> None:
    """Notes every mistake in the declared fields, each at its key."""
    for name, spec in fields.items():
        if spec.type not in FIELD_KINDS:
            continue  # already told
        at = f"event.fields.{name}"
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name) or keyword.iskeyword(name):
            mistakes.add(at, "a field name is letters, digits and _, starts with a letter and is no Python keyword")
        if name in RESERVED_FIELDS:
            mistakes.add(at, f"`{name}` is a field of every event and cannot be declared; take another name")
        _check_bounds(at, spec, mistakes)
        if spec.pattern is not None:
            problem = compile_pattern(spec.pattern, spec.max_length)
            if isinstance(problem, str):
                mistakes.add(f"{at}.pattern", problem)
            elif spec.default is not None and isinstance(spec.default, str) and not problem(spec.default):
                mistakes.add(f"{at}.default", f"{spec.default!r} does not match the field's own pattern")
        _check_default(at, spec, mistakes)


def _check_bounds(at: str, spec: FieldSpec, mistakes: Mistakes) -> None:
    stringy = spec.type in ("id", "text", "string")
    numeric = spec.type in ("number", "integer")
    for key, applies in (
        ("min_length", stringy), ("max_length", stringy or spec.type == "json"), ("pattern", spec.type in ("id", "string")),
        ("minimum", numeric), ("maximum", numeric),
    ):  # fmt: skip
        if getattr(spec, key) is not None and not applies:
            mistakes.add(f"{at}.{key}", f"does not apply to type {spec.type!r}; remove it")
    if spec.min_length is not None and spec.max_length is not None and spec.min_length > spec.max_length:
        mistakes.add(f"{at}.min_length", f"{spec.min_length} is above max_length = {spec.max_length}")
    if spec.minimum is not None and spec.maximum is not None and spec.minimum > spec.maximum:
        mistakes.add(f"{at}.minimum", f"{spec.minimum:g} is above maximum = {spec.maximum:g}")
    if spec.overflow == "truncate" and (spec.type != "text" or spec.max_length is None):
        mistakes.add(f"{at}.overflow", 'only a field of type "text" with max_length can be truncated')


def _check_default(at: str, spec: FieldSpec, mistakes: Mistakes) -> None:
    if spec.default is None:
        return
    kinds: dict[str, tuple[type, ...]] = {"number": (int, float), "integer": (int,), "boolean": (bool,)}
    wanted = kinds.get(spec.type, (str,))
    if spec.type == "json":
        mistakes.add(f"{at}.default", "a json field has no default; remove it")
    elif spec.required:
        mistakes.add(f"{at}.default", "a required field has no default; remove it or `required`")
    elif not isinstance(spec.default, wanted) or (isinstance(spec.default, bool) and spec.type != "boolean"):
        mistakes.add(f"{at}.default", f"{spec.default!r} is not of type {spec.type!r}")
    elif isinstance(spec.default, str):
        if not (spec.min_length or 0) <= len(spec.default) <= (spec.max_length or len(spec.default)):
            mistakes.add(f"{at}.default", f"{spec.default!r} is outside the field's own length bounds")
    elif not (spec.minimum is None or spec.default >= spec.minimum) or not (spec.maximum is None or spec.default <= spec.maximum):
        mistakes.add(f"{at}.default", f"{spec.default!r} is outside the field's own bounds")
