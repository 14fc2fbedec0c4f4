"""What the demo looks like while it runs: flow, verdicts, dead letters and drift on one screen."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich import box
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from streamapp.cli.demo_run import Run, percentiles
from streamapp.cli.say import ROUTE_COLOURS
from streamapp.cli.words import verdict_line, visible

_BARS = "▁▂▃▄▅▆▇█"
_FRAME_S = 0.1
_LINE_S = 2.0


def sparkline(values: Sequence[float], width: int) -> str:
    """Gives the last `width` values as bars; the highest is full."""
    shown = list(values)[-width:]
    top = max(shown, default=0.0)
    return "".join(_BARS[min(7, int(8 * value / top))] if top > 0 else _BARS[0] for value in shown)


def bar(share: float, width: int) -> str:
    """Gives a bar of `width` characters filled to `share`."""
    full = round(max(0.0, min(1.0, share)) * width)
    return "█" * full + "░" * (width - full)


def drift_rows(report: Mapping[str, Any], most: int) -> list[tuple[str, float, float, tuple[str, ...]]]:
    """Gives (name, PSI, its limit, what drifted) of the features (and the score) of one report that moved most."""
    rows = [
        (name, row["psi"], row.get("psi_limit") or 0.0, tuple(row.get("drifted") or ()))
        for name, row in {**report["features"], "score": report["score"]}.items()
        if row.get("psi") is not None
    ]
    return sorted(rows, key=lambda row: -row[1])[:most]


class View:
    """Draws a Run: live on a terminal, as plain lines elsewhere."""

    def __init__(self, console: Console, run: Run, total: int | None, title: str) -> None:
        """`total` is the number of events to come, None where it is not known."""
        self._console, self._run, self._total, self._title = console, run, total, title
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._drawn = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def tick(self) -> None:
        """Draws when it is time for the next frame or line."""
        now = time.monotonic()
        if now - self._drawn < (_FRAME_S if self._live is not None else _LINE_S):
            return
        self._drawn = now
        if self._live is not None:
            self._live.update(self.screen(), refresh=True)
        else:
            self._console.print(self.line(), highlight=False, soft_wrap=True)

    def line(self) -> str:
        """Gives the state as one plain line."""
        ledger = self._run.ledger
        p50, p99 = percentiles(self._recent_latencies())
        latency = "" if p50 is None else f"  p50 {p50:g} ms  p99 {p99:g} ms"
        routes = "  ".join(f"{name} {count:,}" for name, count in ledger.routes.items())
        return (
            f"{self._run.elapsed_s:5.1f} s  {ledger.answered:,} of {self._total_words()} answered  {self._rate():,.0f}/s{latency}"
            f"  waiting {ledger.waiting:,}  {routes}  dead letters {sum(ledger.dead_letters.values()):,}{self._alarm_words()}"
        )

    def screen(self) -> RenderableType:
        """Gives the whole screen; two columns where there is room."""
        panels = [self._flow(), self._verdicts(), self._dead_letters(), self._drift()]
        width = self._console.width
        if width >= 96:
            half = (width - 5) // 2
            for panel in panels:
                panel.width = half
            body: RenderableType = Columns(panels, padding=(0, 1))
        else:
            body = Group(*panels)
        return Group(self._head(), body, self._ticker())

    def _head(self) -> RenderableType:
        run = self._run
        phase = run.timings[-1] if run.timings else None
        pace = (
            "" if phase is None else f"{phase.name}: " + (f"{phase.rate:,.0f} events/s" if phase.rate else "as fast as they are answered")
        )
        head = Table.grid(expand=True)
        head.add_column()
        head.add_column(justify="right")
        head.add_row(Text(self._title, style="bold"), Text(f"{run.elapsed_s:5.1f} s", style="dim"))
        done = run.ledger.answered / self._total if self._total else 0.0
        progress = bar(done, 30) + " " if self._total else ""
        head.add_row(
            Text(f"{progress}{run.ledger.answered:,} of {self._total_words()} events answered", style="cyan"), Text(pace, style="cyan")
        )
        return Panel(head, box=box.HORIZONTALS, padding=(0, 1), style="none")

    def _flow(self) -> Panel:
        run = self._run
        p50, p99 = percentiles(self._recent_latencies())
        rates = [answers for _, answers, _ in run.seconds]
        medians = [percentiles(latencies)[0] or 0.0 for _, _, latencies in run.seconds]
        grid = _grid(3)
        grid.add_row("throughput", Text(f"{self._rate():,.0f}/s", style="bold"), Text(sparkline(rates, 20), style="green"))
        grid.add_row("latency p50", _milliseconds(p50), Text(sparkline(medians, 20), style="blue"))
        grid.add_row("latency p99", _milliseconds(p99), Text("event appended → verdict read", style="dim"))
        grid.add_row("waiting", Text(f"{run.ledger.waiting:,}", style="bold"), Text(f"at most {run.peak_waiting:,}", style="dim"))
        return Panel(grid, title="Flow", title_align="left", border_style="dim", height=6)

    def _verdicts(self) -> Panel:
        ledger = self._run.ledger
        grid = _grid(3)
        answered = max(1, ledger.answered)
        counts = {**ledger.routes, "dead_letter": sum(ledger.dead_letters.values())}
        for name, count in counts.items():
            colour = ROUTE_COLOURS[name]
            words = "dead letters" if name == "dead_letter" else name
            grid.add_row(
                Text(words, style=colour),
                Text(f"{count:,}", style="bold"),
                Text(f"{bar(count / answered, 16)} {count / answered:.1%}", style=colour),
            )
        return Panel(grid, title="Verdicts", title_align="left", border_style="dim", height=6)

    def _dead_letters(self) -> Panel:
        ledger = self._run.ledger
        grid = _grid(3)
        top = ledger.dead_letters.most_common(6)
        most = max((count for _, count in top), default=1)
        for reason, count in top:
            grid.add_row(Text(reason, style="magenta"), Text(f"{count:,}", style="bold"), Text(bar(count / most, 12), style="magenta"))
        if not top:
            grid.add_row(Text("none yet", style="dim"), "", "")
        return Panel(grid, title="Dead letters by reason", title_align="left", border_style="dim", height=8)

    def _drift(self) -> Panel:
        reports = self._run.reports
        grid = _grid(3)
        if not reports:
            grid.add_row(Text("the first window is not full yet", style="dim"), "", "")
            return Panel(grid, title="Drift against the training data", title_align="left", border_style="dim", height=8)
        last = reports[-1]
        for name, psi, limit, drifted in drift_rows(last, 5):
            colour = "red" if drifted else "green"
            grid.add_row(
                Text(name, style=colour),
                Text(f"{psi:.2f}", style="bold"),
                Text(f"{bar(psi / max(psi, 4 * limit), 12)} {'moved' if drifted else 'steady'}", style=colour),
            )
        windows = Text()
        for report in reports[-24:]:
            windows.append("●", style="red" if report["alarm"] else "green")
        grid.add_row(Text("windows", style="dim"), "", windows)
        state = "[red]alarm[/]" if last["alarm"] else "[green]steady[/]"
        return Panel(grid, title=f"Drift against the training data (PSI): {state}", title_align="left", border_style="dim", height=8)

    def _ticker(self) -> RenderableType:
        lines: list[RenderableType] = []
        for sample in [sample for sample in self._run.samples if sample.kind in ("review", "block")][-3:]:
            line = verdict_line(sample.answer)
            line.truncate(self._console.width - 2, overflow="ellipsis")
            lines.append(line)
            lines.append(Text(f"    {visible(sample.text, self._console.width - 8)}", style="italic"))
        return Group(*lines)

    def _rate(self) -> float:
        recent = list(self._run.seconds)[-1:]
        return float(recent[-1][1]) if recent else 0.0

    def _recent_latencies(self) -> list[int]:
        return [latency for _, _, latencies in list(self._run.seconds)[-3:] for latency in latencies]

    def _total_words(self) -> str:
        return f"{self._total:,}" if self._total is not None else f"{self._run.ledger.sent:,} sent"

    def _alarm_words(self) -> str:
        reports = self._run.reports
        return f"  drift {'ALARM' if reports[-1]['alarm'] else 'steady'}" if reports else ""


def _grid(columns: int) -> Table:
    grid = Table.grid(padding=(0, 2))
    for place in range(columns):
        grid.add_column(justify="right" if place == 1 else "left", no_wrap=True)
    return grid


def _milliseconds(value: float | None) -> Text:
    return Text("–" if value is None else f"{value:,.1f} ms", style="bold")
