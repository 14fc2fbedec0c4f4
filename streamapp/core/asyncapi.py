"""The topics of a pipeline as an AsyncAPI 3.0 document; the schemas stand beside it and are referred to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from streamapp.core.spec import PipelineSpec

#: Topic role -> address below the namespace, who sends (True: the engine), payload schema, what it is.
CHANNELS: dict[str, tuple[str, bool, str | None, str]] = {
    "events": ("events.v1", False, "event.v1.json", "Events to decide: JSON, CloudEvents or Confluent-framed JSON"),
    "approve": ("verdicts.approve.v1", True, "verdict.v1.json", "Verdicts that approve"),
    "review": ("verdicts.review.v1", True, "verdict.v1.json", "Verdicts that ask for people"),
    "block": ("verdicts.block.v1", True, "verdict.v1.json", "Verdicts that block"),
    "decisions": ("decisions.v1", True, "decision.v1.json", "Every verdict with its feature values"),
    "dead_letters": ("dead-letters.v1", True, None, "Events that cannot be decided, untouched, with the reason in headers"),
    "late": ("late.v1", True, "event.v1.json", "Copies of events that came too late to change a window"),
    "labels": ("labels.v1", False, None, "What turned out to be true"),
    "monitoring": ("monitoring.v1", True, None, "Drift, data quality and score health per window"),
    "lists": ("lists.v1", False, None, "Who or what is denied or allowed, one record per entry; written by `streamapp lists`"),
    "control": ("control.v1", False, None, "Releases"),
}


def asyncapi(spec: PipelineSpec) -> str:
    """Gives the document as YAML; a test compares its addresses with the topics that are created."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for role, (suffix, sent, schema, description) in CHANNELS.items():
        if role == "decisions" and not spec.verdict.decisions:
            continue
        channels[role] = {
            "address": f"{spec.namespace}.{suffix}",
            "description": description,
            "messages": {role: _message(role, "label.v1.json" if role == "labels" and spec.labels is not None else schema)},
        }
        operations[f"{'send' if sent else 'receive'}_{role}"] = {
            "action": "send" if sent else "receive",
            "channel": {"$ref": f"#/channels/{role}"},
        }
    document = {
        "asyncapi": "3.0.0",
        "info": {"title": spec.pipeline.name, "version": spec.pipeline.version, "description": spec.pipeline.description},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
    }
    return "\n".join(_yaml(document, 0)) + "\n"


def _message(role: str, schema: str | None) -> dict[str, Any]:
    message: dict[str, Any] = {"name": role, "contentType": "application/json"}
    if schema is not None:
        message["payload"] = {"$ref": f"./{schema}"}
    if role == "dead_letters":
        message["headers"] = {"$ref": "./dead-letter-headers.v1.json"}
    elif CHANNELS[role][1] and schema is not None:
        text = {"type": "string"}
        message["headers"] = {"type": "object", "properties": {"source-offset": text, "traceparent": text, "tracestate": text}}
    return message


def _yaml(value: dict[str, Any], depth: int) -> Iterator[str]:
    """Writes mappings only; scalars are JSON, which YAML reads alike, and keys that are not plain words are quoted."""
    for key, item in value.items():
        name = key if key.replace("_", "").isalnum() else json.dumps(key)
        if isinstance(item, dict):
            yield f"{'  ' * depth}{name}:"
            yield from _yaml(item, depth + 1)
        else:
            yield f"{'  ' * depth}{name}: {json.dumps(item, ensure_ascii=False)}"
