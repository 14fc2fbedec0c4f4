"""What to tell when the broker does not take what a worker writes."""

from __future__ import annotations

from aiokafka.errors import ProducerFenced

from streamapp.core.errors import BusError


def not_taken(what: str, refused: BaseException) -> BusError:
    """Takes what was written and what the broker had against it; gives the reason for which the worker ends."""
    if isinstance(refused, ProducerFenced):
        return BusError(
            f"{what}: another worker has its partition by now, or its transaction was open for too long (this worker stood still, or its "
            "session ended)",
            "start it again: nothing of the transaction is visible, and whoever has the partition decides its events",
        )
    return BusError(f"the broker does not take {what}: {refused!r}", "check it with `streamapp doctor`")
