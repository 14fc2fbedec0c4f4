"""Run as a program of its own: `python -m tests.late_kernels PIPELINE` prints what is compiled or loaded after the warm-up of a worker.

The way of the records is the real one, from a fetched record batch to the record batches of the outputs, without a broker.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from collections.abc import Sequence

from numba.core.dispatcher import Dispatcher

from streamapp import pipeline
from streamapp.bus.columns import Message, fill
from streamapp.bus.emit import Delivery
from streamapp.bus.producer import Parcel
from streamapp.bus.topics import Topics
from streamapp.cli import serve
from streamapp.cli.warming import warm_up
from streamapp.config import load_pipeline, load_settings
from streamapp.control.generate import Mix, messages
from streamapp.control.payments import PaymentMix, payments
from streamapp.core.fetched import plain_fetch
from streamapp.prefetch import reading

SIZES = (1, 3, 12, 40, 70, 150, 600, 2_048, 5)
PARTITIONS = 4
NOW_MS = 1_767_225_600_000


class Acknowledging:
    """Stands where the producer does: seals the batches, as sending them would, and has them acknowledged at once."""

    enqueue = None

    def enqueue_all(self, parcels: Sequence[Parcel]) -> asyncio.Future[list[int]]:
        for batch, _topic, _partition in parcels:
            batch._set_producer_state(1, 0, 0)
            batch._build()
        answer = asyncio.get_running_loop().create_future()
        answer.set_result([0] * len(parcels))
        return answer


def known() -> dict[str, set[object]]:
    """Gives the signatures that each kernel of the package is there for."""
    modules = [module for name, module in sys.modules.items() if name.startswith("streamapp")]
    kernels = {one for module in modules for one in vars(module).values() if isinstance(one, Dispatcher)}
    return {f"{one.py_func.__module__}.{one.py_func.__qualname__}": set(one.signatures) for one in kernels}


async def late(name: str) -> list[str]:
    """Gives a line for each signature that came after the warm-up."""
    settings = load_settings({}, environ={})
    serving = serve.load(settings, load_pipeline(name))
    warm_up(serving)
    before = known()
    count = sum(SIZES) + PARTITIONS * len(SIZES)
    made = messages(2 * count, Mix(seed=5)) if name == "messages" else payments(count, PaymentMix(seed=5, customers=500, terminals=200))
    records: list[Message] = [(one.key, one.value, []) for one in made if one.key is not None and one.value is not None]
    delivery, states = Delivery(Acknowledging(), Topics("late")), [serving.state.new() for _ in range(PARTITIONS)]
    shared = serve.shared_windows(settings, serving, "late")
    read_first = reading(serving.shared, shared, None)
    ends, found = [0] * PARTITIONS, []
    for size in SIZES:
        segments, places = [], range(PARTITIONS) if size >= PARTITIONS else [0]
        for place in places:
            took = max(1, size // len(places))
            (batch,) = fill(records[:took], 1 << 20, NOW_MS)
            records = records[took:]
            batch._set_producer_state(1, 0, 0)
            fetch = plain_fetch(struct.pack(">q", ends[place]) + bytes(batch._build())[8:], ends[place])
            assert fetch is not None
            segments.append(fetch.take(took).of("late", place, 1))
            ends[place] += took
        plan = pipeline.plan(segments, serving)
        read = await read_first(plan, serving) if serving.shared.stores else pipeline.Read()
        outcome = pipeline.decide(plan, read, [states[place] for place in places], serving, NOW_MS, time.perf_counter)
        verdicts = serving.encoder.verdicts(outcome)
        delivery.emit(outcome, verdicts, serving.encoder.decisions(outcome, verdicts))
        now = known()
        found += [f"{size} rows: {kernel} {one}" for kernel, ones in now.items() for one in ones - before.get(kernel, set())]
        before = now
    return found


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in asyncio.run(late(sys.argv[1])))
