"""Lists as columns: who or what of a micro-batch is on them, what that decides, and the sentence that tells people why.

Policy order (DESIGN, section "Models are data"): what is denied stays denied whatever else speaks for it; then what is allowed; then
rules, models and the default. An entry counts until it expires by the record's own timestamp, so that a redelivery decides alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from streamapp.core.conditions import Bools
from streamapp.core.events import Plan
from streamapp.core.explain import Reason
from streamapp.core.language import Words
from streamapp.core.lists_entry import EXACT, MATCHES, MATCHES_OF, NORMALISED, SIMILAR, Bytes, Int64, normal_forms
from streamapp.core.lists_table import ListTable
from streamapp.core.lists_text import Spelled, sketches, spelled
from streamapp.core.route import APPROVE, ROUTE_NAMES
from streamapp.core.spec import PipelineSpec
from streamapp.core.windows_index import hash_bytes, joined

#: Reason codes and `decided_by` of a list: these, and its name.
REASON, DECIDER = "list_", "list:"


@dataclass(slots=True, frozen=True)
class Listed:
    """What lists decide of n rows: the place among the deciding lists [n], -1 where none does; and per denied row why.

    It looks nothing up any more: while a slow tier is asked, the lists may move on.
    """

    by: npt.NDArray[np.int8]
    routes: npt.NDArray[np.int8]  #  by place
    reasons: Mapping[int, Reason]

    def put(self, route: npt.NDArray[np.int8], decided_by: npt.NDArray[np.int8], first: int) -> None:
        """Writes what the lists decide over what rules and models said [n], in place; `first` is where the lists' deciders begin."""
        mine = self.by >= 0
        route[mine] = self.routes[self.by[mine]]
        decided_by[mine] = self.by[mine] + first


class ListPlan:
    """The lists of one pipeline: which decide in which order, and which fields are looked up for that. Frozen; the entries are a table."""

    def __init__(self, spec: PipelineSpec, words: Words) -> None:
        """Takes the pipeline and its language; a strict list goes before a milder one, then the one that stands first in the file."""
        self._words, self._told = words, {match: words.template(f"listed_{match}") for match in MATCHES}
        self.lists = spec.lists
        denying = sorted((name for name, one in spec.lists.items() if one.effect == "deny"), key=lambda name: -self._route(name))
        self.deciding: tuple[str, ...] = (*denying, *(name for name, one in spec.lists.items() if one.effect == "allow"))
        self.routes = np.array([self._route(name) for name in self.deciding], np.int8)
        self.deciders = tuple(f"{DECIDER}{name}" for name in self.deciding)
        self.owner = spec.pipeline.owner
        self.fixed = self.table()

    def _route(self, name: str) -> int:
        return APPROVE if self.lists[name].effect == "allow" else ROUTE_NAMES.index(self.lists[name].route)

    def table(self, added: Mapping[str, Sequence[str]] | None = None) -> ListTable:
        """Gives a table that holds what the pipeline file says, and what is `added` to it."""
        return ListTable(self.lists, added)

    def rehearsal(self) -> ListTable:
        """Gives a table with an entry of every kind, so that whoever asks it has compiled every kernel."""
        table = self.table()
        for name, listed in self.lists.items():
            for match in MATCHES_OF[listed.kind]:
                table.fix(name, "rehearsal", match)
        return table

    def decide(self, lookup: Lookup) -> Listed:
        """Gives which list decides which row. Law: a row's answer depends on that row and the table only."""
        by = np.full(lookup.n, -1, np.int8)
        reasons: dict[int, Reason] = {}
        for place, name in enumerate(self.deciding):
            if not lookup.table.size(name):
                continue
            for field in self.lists[name].fields:
                slots = lookup.slots(name, field)
                new = (slots >= 0) & (by < 0)
                by[new] = place
                if self.routes[place] != APPROVE:
                    reasons |= {row: self._reason(name, field, lookup.table, int(slots[row])) for row in np.flatnonzero(new).tolist()}
        return Listed(by, self.routes, reasons)

    def _reason(self, name: str, field: str, table: ListTable, slot: int) -> Reason:
        """Tells list, way of comparing and owner, never the entry itself."""
        match, owner = table.entry_words(slot)
        said = {"list": name, "match": match, "owner": owner or self.owner or "nobody", "feature": self._words.feature(field)}
        own = self.lists[name].text if self._words.own else None
        return Reason(f"{REASON}{name}", self._told[match] % said if own is None else own.format_map(said), field)


class Lookup:
    """The questions of one micro-batch to the table; every column is read and hashed once, however many lists look at it."""

    def __init__(self, plan: Plan, table: ListTable) -> None:
        self.n, self.table, self.version = len(plan), table, table.version
        self._plan = plan
        self._forms: dict[tuple[str, int], tuple[Bytes, Int64]] = {}
        self._hashes: dict[tuple[str, int], Int64] = {}
        self._spelled: dict[str, Spelled] = {}
        self._slots: dict[tuple[str, str], Int64] = {}

    def listed(self, name: str, field: str) -> Bools:
        """Gives where the field's value is on the list [n]; of a missing value nothing is."""
        return self.slots(name, field) >= 0

    def slots(self, name: str, field: str) -> Int64:
        """Gives the slot of the entry that each row's value is [n], -1 where it is none that is alive."""
        found = self._slots.get((name, field))
        if found is None:
            kind = self.table.lists[name].kind
            found = self._words_of(name, field) if kind == "words" else self._whole(name, field, text=kind == "content")
            self._slots[name, field] = found
        return found

    def _whole(self, name: str, field: str, *, text: bool) -> Int64:
        """Looks for whole values: as they are, then as they are compared otherwise, then by likeness."""
        found = np.full(self.n, -1, np.int64)
        counts = self.table.count[self.table.index(name)]
        for match in (EXACT, NORMALISED):
            if counts[match]:
                slots = self.table.probe(name, match, self._hashed(field, match, text=text), self._plan.received_at)
                data, start = self._form(field, match, text=text)
                for row in np.flatnonzero((slots >= 0) & (found < 0)).tolist():
                    form = data[start[row] : start[row + 1]].tobytes()
                    if self.table.holds(int(slots[row]), sha256(form).digest() if text else form):
                        found[row] = slots[row]
        if counts[SIMILAR] and text:
            data, start = self._form(field, NORMALISED, text=True)
            near = self.table.similar[self.table.index(name)].like(
                sketches(data, start), self.table.lists[name].similarity, self.table.expires, self._plan.received_at
            )
            found = np.where(found < 0, near, found)
        return found

    def _words_of(self, name: str, field: str) -> Int64:
        """Looks for the list's words and phrases anywhere in a text; the first that is found counts."""
        found = np.full(self.n, -1, np.int64)
        said = self._spelling(field)
        for words, entries in sorted(self.table.phrases[self.table.index(name)].items()):
            for first in range(words if entries else 0):
                at = np.ascontiguousarray(said.at[first::words])
                if len(at) < 2:
                    continue
                row_of = said.row[first::words][: len(at) - 1]
                slots = self.table.probe(name, NORMALISED, hash_bytes(said.data, at), self._plan.received_at[row_of])
                for place in np.flatnonzero(slots >= 0).tolist():
                    word = first + place * words
                    row = said.row[word]
                    if found[row] >= 0 or said.row[word + words - 1] != row:
                        continue
                    if self.table.holds(int(slots[place]), said.data[at[place] : at[place + 1]].tobytes()):
                        found[row] = slots[place]
        return found

    def _hashed(self, field: str, match: int, *, text: bool) -> Int64:
        hashed = self._hashes.get((field, match))
        if hashed is None:
            hashed = self._hashes[field, match] = hash_bytes(*self._form(field, match, text=text))
        return hashed

    def _form(self, field: str, match: int, *, text: bool) -> tuple[Bytes, Int64]:
        form = self._forms.get((field, match))
        if form is None:
            if text:
                column = self._plan.text(field)
                said = self._spelling(field) if match == NORMALISED else None
                form = (said.data, said.start) if said is not None else (column.raw, column.raw_start)
            else:
                values = self._plan.column(field)
                values = [value or "" for value in values] if None in values else values
                form = normal_forms(values) if match == NORMALISED else joined(values)
            self._forms[field, match] = form
        return form

    def _spelling(self, field: str) -> Spelled:
        said = self._spelled.get(field)
        if said is None:
            column = self._plan.text(field)
            said = self._spelled[field] = spelled(column.folded, column.folded_start)
        return said
