"""The batch transport under Faust with an agent that only acknowledges: what the engine costs before anything is decided."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from ground import Laps

from streamapp.bus.app import build_app, run, source_topic
from streamapp.bus.batch import BatchLimits


async def main(bootstrap: str, topic: str, total: int) -> None:
    app = build_app(f"{topic}.noop", bootstrap, limits=BatchLimits())
    laps, stop = Laps(total), asyncio.Event()

    @app.agent(source_topic(app, topic))
    async def acknowledge(stream: Any) -> None:
        async for event in stream.noack().events():
            event.value.ack()
            if laps.add(len(event.value)):
                stop.set()

    await run(app, stop)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
