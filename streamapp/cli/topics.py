"""`streamapp topics`: create and check."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import click

from streamapp.cli.options import json_output, settings
from streamapp.config import Settings


@click.group("topics")
def command() -> None:
    """Create and check the topics of a pipeline."""


@command.command(
    "create",
    epilog="""\b
Examples:
  streamapp topics create --pipeline messages --bootstrap 127.0.0.1:9092
  streamapp topics create --partitions 12 --replicas 3""",
)
@settings("pipeline", "bootstrap", "namespace", "partitions", "replicas", kafka=True)
@json_output
def create(settings: Settings, as_json: bool) -> None:
    """Create the topics that are missing, with the settings they need; those that exist stay as they are."""
    from streamapp.bus.security import client_arguments
    from streamapp.bus.topics import Topics, create_topics
    from streamapp.cli.say import say
    from streamapp.config import load_pipeline

    spec = load_pipeline(settings.pipeline)
    topics = Topics(settings.namespace or spec.namespace, spec.topics.retention_ms, settings.events_topic)
    partitions = settings.partitions if "partitions" in settings.origins else spec.topics.partitions or settings.partitions
    replicas = settings.replicas or spec.topics.replication
    created = asyncio.run(
        create_topics(settings.bootstrap, topics, partitions=partitions, replicas=replicas, client=client_arguments(settings.kafka))
    )
    words = "\n".join(f"{'created' if new else 'exists '}  {name}" for name, new in created.items())
    say(
        {"created": [name for name, new in created.items() if new], "existing": [name for name, new in created.items() if not new]},
        words,
        as_json=as_json,
    )


@command.command(
    "check",
    epilog="""\b
Examples:
  streamapp topics check --pipeline payments --bootstrap 127.0.0.1:9092
  streamapp topics check --json""",
)
@settings("pipeline", "bootstrap", "namespace", kafka=True)
@json_output
@click.pass_context
def check(context: click.Context, settings: Settings, as_json: bool) -> None:
    """Compare the broker's topics with what the pipeline needs; exit code 1 where a promise hangs on a difference."""
    from streamapp.bus.security import client_arguments
    from streamapp.bus.topics import Topics, check_topics
    from streamapp.cli.say import say
    from streamapp.config import load_pipeline

    spec = load_pipeline(settings.pipeline)
    topics = Topics(settings.namespace or spec.namespace, spec.topics.retention_ms, settings.events_topic)
    findings = asyncio.run(check_topics(settings.bootstrap, topics, client=client_arguments(settings.kafka)))
    words = "\n".join(f"{finding.topic} {finding.problem}\n    Fix: {finding.fix}" for finding in findings)
    say({"findings": [asdict(finding) for finding in findings]}, words or "All topics are as they have to be.", as_json=as_json)
    context.exit(1 if any(finding.serious for finding in findings) else 0)
