"""Profiles from a file into the process, for training: what `profiles load` would write, found again as a worker finds it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streamapp.core.errors import ConfigError

if TYPE_CHECKING:
    from streamapp.control.profiles import GivenProfiles
    from streamapp.core.profiles import Part
    from streamapp.core.spec import PipelineSpec

#: Mistakes told one by one.
TOLD_MAX = 10


def profile_part(spec: PipelineSpec) -> Part:
    """Gives what a file of profiles fills; raises ConfigError for a pipeline that declares no profile feature."""
    from streamapp.core.profiles import ProfilePlan

    for part in ProfilePlan.of(spec.features.profile).parts:
        if part.name == "profile":
            return part
    raise ConfigError(f"pipeline {spec.pipeline.name} declares no profile feature", "name them in [features.profile] of its file")


def given_profiles(source: Path, spec: PipelineSpec) -> GivenProfiles:
    """Gives the profiles in a file, JSON lines or .csv; lines that are none are told and left out, as `profiles load` leaves them out."""
    from streamapp.adapters.profiles_memory import MemoryProfiles
    from streamapp.cli.say import warn
    from streamapp.control.profiles import GivenProfiles, read_rows, strangers
    from streamapp.core.profiles import ProfilePlan

    part, key = profile_part(spec), spec.pipeline.key
    store = MemoryProfiles(ProfilePlan.of(spec.features.profile))
    of_ms, newest_ms, lines, left_out = int(source.stat().st_mtime * 1000), 0, 0, 0
    told, members = list[str](), set[str]()
    with source.open("rb") as opened:
        for rows in read_rows(opened, part, key, of_ms, as_csv=source.suffix == ".csv"):
            store.put(part, rows.keys, rows.values, rows.updated_ms)
            newest_ms = max(newest_ms, int(rows.updated_ms.max(initial=0)))
            lines += rows.lines
            left_out += len(rows.mistakes)
            told += rows.mistakes[: TOLD_MAX - len(told)]
            members |= rows.members
    for sentence in strangers(sorted(members), part, key):
        warn(sentence)
    warn_left_out(told, left_out)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    return GivenProfiles(store.known, newest_ms or of_ms, {"name": source.name, "sha256": digest, "rows": lines, "profiles": True})


def warn_left_out(told: Sequence[str], left_out: int) -> None:
    """Tells the first mistakes of a file, and how many more there were."""
    from streamapp.cli.say import warn

    for mistake in told:
        warn(mistake)
    if left_out > len(told):
        warn(f"… and {left_out - len(told):,} more")
