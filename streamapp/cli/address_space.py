"""Whether this system counts address space as memory: a limit of the process (`ulimit -v`), or strict overcommit of the machine."""

from __future__ import annotations

from pathlib import Path

OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
_STRICT = "2"


def counted() -> bool:
    """Says whether reserved space takes what something else may need; a system that tells nothing counts none."""
    try:
        import resource  # not on Windows

        if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
            return True
        return OVERCOMMIT.read_text().strip() == _STRICT
    except (ImportError, OSError):
        return False
