"""What `streamapp replay --compare` found, in words and tables or as one JSON object."""

from __future__ import annotations

from collections.abc import Collection

from rich.console import Console

from streamapp.cli.say import say, table
from streamapp.control.differences import Differences


def tell(told: Differences, unanswered: int, releases: Collection[str], release: str, *, as_json: bool) -> None:
    """Takes what was compared, how many events had no answer, the releases that decided then and the one that decides now."""
    machine = {
        "events": told.compared + unanswered, "compared": told.compared, "equal": told.equal, "unanswered": unanswered,
        "members": dict(told.members.most_common()),
        "routes": [{"then": then, "now": now, "events": count} for (then, now), count in told.routes.most_common()],
        "examples": told.examples, "releases_then": sorted(releases), "release_now": release,
    }  # fmt: skip
    if as_json:
        say(machine, "", as_json=True)
        return
    console = Console(highlight=False)
    moved = told.routes.total()
    console.print(
        f"{told.compared:,} events compared: {told.equal:,} decided as then, {moved:,} by another route, "
        f"{told.compared - told.equal - moved:,} by the same route with something else different."
    )
    console.print(f"Decided then by release {', '.join(sorted(releases)) or '(none)'}, now by {release}.")
    if unanswered:
        console.print(f"{unanswered:,} events have no answer on the topics: not decided yet, or no longer kept.", style="yellow")
    if told.routes:
        routes = table("Routes that changed", ("then", "now", "events"), right=("events",))
        for (then, now), count in told.routes.most_common():
            routes.add_row(then, now, f"{count:,}")
        console.print(routes)
    if told.members:
        differs = table("What differs", ("member", "events"), right=("events",))
        for member, count in told.members.most_common(15):
            differs.add_row(member, f"{count:,}")
        console.print(differs)
    for one in told.examples[:3]:
        shown = "; ".join(f"{member} {then!s:.60} → {now!s:.60}" for member, (then, now) in list(one["differs"].items())[:4])
        console.print(f"partition {one['partition']} offset {one['offset']}: {shown}", soft_wrap=True)
