"""Verdicts and dead letters in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from streamapp.cli.say import ROUTE_COLOURS

#: Characters nobody sees; shown as a mark, so that hidden text looks hidden.
_UNSEEN = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"), "·")


def reason_words(verdict: Mapping[str, Any], most: int = 3) -> str:
    """Gives why, in one line: the texts of the first reasons."""
    reasons = verdict.get("reasons") or []
    return "; ".join(str(reason.get("text", reason.get("code", ""))) for reason in reasons[:most])


def surety(verdict: Mapping[str, Any]) -> str:
    """Gives the calibrated probability and who decided."""
    probability = verdict.get("probability")
    by = f"decided by {verdict.get('decided_by', '?')}"
    return by if probability is None else f"probability {probability:.3f}, {by}"


def verdict_line(verdict: Mapping[str, Any]) -> Text:
    """Gives one verdict as one line: when, what, how sure, which event, why."""
    route = str(verdict.get("verdict", "?"))
    probability = verdict.get("probability")
    line = Text(_clock(verdict.get("decided_at")), style="dim")
    line.append(f"  {route.upper():8}", style=f"bold {ROUTE_COLOURS.get(route, 'white')}")
    line.append(f"{'      ' if probability is None else f'{probability:6.3f}'}  ")
    line.append(f"{verdict.get('event_id', '?')}", style="cyan")
    why = reason_words(verdict)
    if why:
        line.append(f"  {why}")
    for degraded in verdict.get("degraded") or []:
        line.append(f"  [{degraded.get('component')}: {degraded.get('cause')}]", style="yellow")
    if verdict.get("flags"):
        line.append(f"  ({', '.join(verdict['flags'])})", style="yellow")
    return line


def dead_letter_line(headers: Mapping[str, str]) -> Text:
    """Takes the headers of a dead letter as text; gives one line: when, why, where in the event, where it lay."""
    line = Text(_clock(headers.get("dlq.first-failed-at")), style="dim")
    line.append(f"  {'DEAD':8}", style=f"bold {ROUTE_COLOURS['dead_letter']}")
    line.append(f"        {headers.get('dlq.reason', '?')}", style="magenta")
    line.append(f" at {headers.get('dlq.path', '?')}: {headers.get('__streams.errors.message', '')}")
    where = "-".join(headers.get(f"__streams.errors.{part}", "?") for part in ("topic", "partition", "offset"))
    line.append(f"  {where}", style="dim")
    return line


def visible(text: str, most: int = 160) -> str:
    """Gives text as it can be shown on one line: unseen characters as marks, cut at `most` columns of a terminal."""
    shown = "".join(char if char.isprintable() else "�" for char in text.translate(_UNSEEN).replace("\n", " ").replace("\t", " "))
    return shown if cell_len(shown) <= most else set_cell_size(shown, most - 1).rstrip() + "…"


def _clock(epoch_ms: Any) -> str:
    try:
        return datetime.fromtimestamp(int(epoch_ms) / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
    except (TypeError, ValueError, OverflowError, OSError):
        return "--:--:--.---"
