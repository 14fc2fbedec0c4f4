"""`make bench`: how fast is the line, against what aiokafka alone can do and against what one writes first, in one run on one broker?"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ground
import latency
import stages
from rich.console import Console
from rich.table import Table

from streamapp.bus.topics import Topics

HERE = Path(__file__).resolve().parent
ROUTES = ("approve", "review", "block")
#: Events per round; the embedded broker keeps some 70,000, and slow ones are given what they do in seconds.
EVENTS = {True: {"fast": 300_000, "textbook": 4_000, "take": 10_000}, False: {"fast": 20_000, "textbook": 4_000, "take": 10_000}}
PIECES = {
    "raw read": "aiokafka alone: read",
    "no-op": "batch transport, agent that only acknowledges",
    "raw answer": "aiokafka alone: decode, tiny verdict, acknowledged",
    "messages": "the whole `messages` pipeline, one worker",
    "textbook": "textbook Faust: per event, Table, topic.send",
    "take": "textbook Faust with take(): one model call per list",
}
RATIOS = (("no-op", "raw read"), ("messages", "raw answer"), ("messages", "textbook"), ("messages", "take"))


async def one_round(where: ground.Broker, events: tuple[list[Any], list[Any]], models: str) -> dict[str, ground.Rate]:
    keys, values = events
    sizes = EVENTS[where.real]
    fast = Topics(ground.namespace("fast"))
    await ground.fill(where, fast, keys, values)
    await ground.create(where, f"{fast.ns}.raw.v1")
    script, total = HERE / "raw_aiokafka.py", str(len(keys))
    found = {
        "raw read": await asyncio.to_thread(ground.own_report, str(script), "read", where.address, fast.events, total),
        "no-op": await asyncio.to_thread(ground.own_report, str(HERE / "transport_noop.py"), where.address, fast.events, total),
        "raw answer": await asyncio.to_thread(
            ground.own_report, str(script), "answer", where.address, fast.events, f"{fast.ns}.raw.v1", total
        ),
    }
    with ground.process(*worker(where, fast.ns, models)) as child:
        found["messages"] = await ground.outputs_of(child, where, outputs(fast), len(keys))
    for piece, file in (("textbook", "textbook_faust.py"), ("take", "textbook_take.py")):
        slow = Topics(ground.namespace(piece))
        await ground.fill(where, slow, keys[: sizes[piece]], values[: sizes[piece]])
        # The embedded broker creates topics by itself and refuses to be asked.
        environ = {} if where.real else {"TOPIC_ALLOW_DECLARE": "0"}
        with ground.process(str(HERE / file), where.address, slow.ns, models, environ=environ) as child:
            found[piece] = await ground.outputs_of(child, where, outputs(slow), sizes[piece])
    return found


def worker(where: ground.Broker, namespace: str, models: str) -> list[str]:
    """The command line of a real worker."""
    options = {"--pipeline": "messages", "--bootstrap": where.address, "--namespace": namespace, "--models": models, "--metrics-port": "0"}
    return ["-m", "streamapp", "worker", *(word for option in options.items() for word in option)]


def outputs(topics: Topics) -> list[str]:
    """The topics on which each event is answered once."""
    return [getattr(topics, route) for route in ROUTES] + [topics.dead_letters]


async def main(arguments: argparse.Namespace) -> Mapping[str, Any]:
    console = Console(stderr=True)
    with ground.broker(arguments.bootstrap, embedded=arguments.embedded) as where:
        events = ground.good_events(arguments.events or EVENTS[where.real]["fast"])
        told = {
            "question": __doc__,
            "machine": ground.machine(),
            "broker": "Apache Kafka, beside it on the same machine" if where.real else "embedded (in memory, few events)",
            "events": EVENTS[where.real] | {"fast": len(events[0])},
            "taken_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        rounds = []
        for number in range(arguments.rounds):
            rounds.append(await one_round(where, events, arguments.models))
            console.print(
                f"round {number + 1} of {arguments.rounds}: " + ", ".join(f"{k} {v.events_per_s:,.0f}/s" for k, v in rounds[-1].items())
            )
        told["rounds"] = [{piece: asdict(rate) for piece, rate in one.items()} for one in rounds]
        told["pieces"] = {
            piece: {figure: ground.spread([getattr(one[piece], figure) for one in rounds]) for figure in ("events_per_s", "cpu_us")}
            for piece in PIECES
        }
        told["ratios"] = {
            f"{one} / {other}": ground.spread([each[one].events_per_s / each[other].events_per_s for each in rounds])
            for one, other in RATIOS
        }
        if where.real and not arguments.without_latency:
            told["latency"] = [
                await latency.measure(where, lambda ns: worker(where, ns, arguments.models), rate, arguments.rounds)
                for rate in latency.RATES
            ]
    told["stages"] = stages.measure(arguments.models, arguments.rounds)
    return told


def show(told: Mapping[str, Any], console: Console) -> None:
    """Prints what was measured as tables."""
    machine = ", ".join(f"{name} {value}" for name, value in told["machine"].items())
    console.print(f"{machine}\nbroker: {told['broker']}; {told['taken_at']}; events per round: {told['events']}", highlight=False)
    table = Table("piece", "events/s", "least … largest", "CPU µs/event", "n", title="Throughput over a backlog, one process each")
    for piece, words in PIECES.items():
        rate, cpu = told["pieces"][piece]["events_per_s"], told["pieces"][piece]["cpu_us"]
        table.add_row(
            words, f"{rate['median']:,.0f}", f"{rate['least']:,.0f} … {rate['largest']:,.0f}", f"{cpu['median']:,.1f}", str(rate["n"])
        )
    console.print(table)
    table = Table("ratio", "median", "least … largest", title="Ratios of the same rounds")
    for name, ratio in told["ratios"].items():
        table.add_row(name, f"{ratio['median']:,.2f}", f"{ratio['least']:,.2f} … {ratio['largest']:,.2f}")
    console.print(table)
    if "latency" in told:
        latency.show(told["latency"], console)
    stages.show(told["stages"], console)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", help="a running Kafka, HOST:PORT; else one is started (Java, Maven), else the embedded broker")
    parser.add_argument("--embedded", action="store_true", help="the embedded broker even where Java is")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, help="per round, for the fast pieces")
    parser.add_argument("--models", default=str(ground.ROOT / "models"))
    parser.add_argument("--without-latency", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "bench.json")
    given = parser.parse_args()
    result = asyncio.run(main(given))
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    show(result, Console(width=130))
    sys.stderr.write(f"written to {given.out}\n")
