"""Seeds that found a breach once, each with what it was. A change of the simulation gives them another story: then they are just seeds."""

from __future__ import annotations

BREACHED_ONCE: tuple[int, ...] = ()
