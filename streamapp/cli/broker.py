"""`streamapp broker`: the embedded broker as a process of its own."""

from __future__ import annotations

import click


@click.command(
    "broker",
    epilog="""\b
Examples:
  streamapp broker                       # HOST:PORT is the first line it writes
  streamapp worker --bootstrap HOST:PORT # in a second terminal""",
)
@click.option("--until-stdin-closes", is_flag=True, hidden=True, help="End with the process that holds our standard input.")
def command(until_stdin_closes: bool) -> None:
    """Run an in-memory broker on loopback that speaks Kafka's protocol, for trying things out.

    It chooses a free port and keeps about 5 MiB per partition; topics appear with four partitions when they are first named. A restart
    loses everything: for more than trying out, use Apache Kafka.
    """
    from streamapp.bus.embedded import run

    run(until_stdin_closes=until_stdin_closes)
