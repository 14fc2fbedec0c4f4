"""streamapp: a decision engine on an event bus. Start with `pipeline.py` (the way of an event), then `worker.py` (its shell)."""

__version__ = "0.1.0"
