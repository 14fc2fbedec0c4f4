"""What is on the lists of a pipeline now: an open-addressing table of hashed entries that follows the topic record by record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core import lists_entry
from streamapp.core.growing import grown
from streamapp.core.lists_entry import EXACT, MATCHES, NORMALISED, SIMILAR, Entry, Match
from streamapp.core.lists_text import SketchIndex
from streamapp.core.spec import ListSpec
from streamapp.core.windows_index import compiled, erase, find, hash_names, insert, larger, table_for

Int64 = npt.NDArray[np.int64]

NEVER = np.iinfo(np.int64).max
#: Slots at the start; twice as many whenever they are used up.
SLOTS = 64


class ListTable:
    """The entries of all lists of one pipeline, moved in place by `apply`; two tables that applied the same records are equal.

    Memory: about 300 bytes per entry, of texts that are compared by similarity below 4,000.
    """

    def __init__(self, lists: Mapping[str, ListSpec], added: Mapping[str, Iterable[str]] | None = None) -> None:
        """Takes the declared lists, whose fixed entries are always there, and what else is on them (examples of rules)."""
        self.lists = lists
        self._place = {name: place for place, name in enumerate(lists)}
        names = [f"{name}/{match}" for name in lists for match in MATCHES]
        self._salt = hash_names(names).reshape(-1, len(MATCHES), 2)
        self._table = table_for(SLOTS)
        self._mark, self.expires = np.zeros((SLOTS, 2), np.int64), np.zeros(SLOTS, np.int64)
        self._confirm: list[bytes] = []
        self._match: list[int] = []
        self._owner: list[str] = []
        self._digest: list[int] = []  #             of each entry's record; 0: a fixed entry, which no record changes
        self._free: list[int] = []
        self.count = np.zeros((len(lists), len(MATCHES)), np.int64)
        self._sizes = [0] * len(lists)
        self.phrases: list[dict[int, int]] = [{} for _ in lists]  #  of lists of words: how many entries have so many words
        self.similar = [SketchIndex() for _ in lists]
        self.next_offset, self.sum = 0, 0
        for name, listed in lists.items():
            for text in (*listed.entries, *(added or {}).get(name, ())):
                self.fix(name, text)

    @property
    def version(self) -> str:
        """What names the state of the lists: the offset of the topic's next record, and a sum over all entries.

        Two tables with one version decide alike (equal sums of different entries: 2^-64).
        """
        return f"{self.next_offset}-{self.sum:016x}"

    def __len__(self) -> int:
        """How many entries there are, those that have expired included."""
        return sum(self._sizes)

    def apply(self, offset: int, key: bytes | None, value: bytes | None) -> None:
        """Takes one record of the topic. Raises ValueError for what is no entry; it is passed over, and changes nothing else.

        An entry of a list that this pipeline does not declare is nobody's here.
        """
        self.next_offset = offset + 1
        name, match, low, high, entry = lists_entry.decode(key, value)
        if name not in self._place:
            return
        digest = 0 if value is None else int.from_bytes(blake2b((key or b"") + b"\0" + value, digest_size=8).digest(), "big")
        self._put(self._place[name], match, low, high, entry, digest)

    def fix(self, name: str, text: str, match: Match | None = None) -> None:
        """Puts on a list what no record takes away again. Raises ConfigError."""
        key, entry = lists_entry.entry_of(name, self.lists[name], text, match, owner="", reason="", added_at=0, expires_at=0)
        _, place, low, high, _ = lists_entry.decode(key, None)
        self._put(self._place[name], place, low, high, entry, 0)
        self.sum ^= int.from_bytes(blake2b(key, digest_size=8).digest(), "big")

    def probe(self, name: str, match: int, hashed: Int64, now: Int64) -> Int64:
        """Takes hashes int64[n, 2] and the time of each [n], epoch ms; gives slots that may hold them [n], -1 where none is alive."""
        found = np.full(len(hashed), -1, np.int64)
        place = self._place[name]
        if self.count[place, match]:
            low, high = self._salt[place, match].tolist()
            _probe(self._table, self._mark, self.expires, hashed, low, high, now, found)
        return found

    def holds(self, slot: int, confirmation: bytes) -> bool:
        """Says whether a slot that was found by its hash is really this one."""
        return self._confirm[slot] == confirmation

    def entry_words(self, slot: int) -> tuple[Match, str]:
        """Gives how an entry was compared, and who keeps it."""
        return MATCHES[self._match[slot]], self._owner[slot]

    def by_list(self) -> Mapping[str, int]:
        """Gives how many entries each list has, those that have expired included."""
        return dict(zip(self.lists, self._sizes, strict=True))

    def size(self, name: str) -> int:
        """Gives how many entries a list has, those that have expired included."""
        return self._sizes[self._place[name]]

    def index(self, name: str) -> int:
        """Gives the place of a list among those declared."""
        return self._place[name]

    def _slot_of(self, place: int, match: int, low: int, high: int) -> int:
        salt_low, salt_high = self._salt[place, match].tolist()
        return int(find(self._table, self._mark, low ^ salt_low, high ^ salt_high))

    def _put(self, place: int, match: int, low: int, high: int, entry: Entry | None, digest: int) -> None:
        slot = self._slot_of(place, match, low, high)
        if slot >= 0:
            if not self._digest[slot]:
                return
            self._drop(place, match, slot)
        if entry is None:
            return
        salt_low, salt_high = self._salt[place, match].tolist()
        slot = self._free.pop() if self._free else len(self._confirm)
        if slot == len(self._confirm):
            self._grow(slot)
        self._mark[slot] = low ^ salt_low, high ^ salt_high
        self.expires[slot] = entry.expires_at or NEVER
        self._confirm[slot], self._digest[slot] = lists_entry.confirmation(entry), digest
        self._match[slot], self._owner[slot] = match, entry.owner
        insert(self._table, low ^ salt_low, slot)
        self.count[place, match] += 1
        self._sizes[place] += 1
        self.sum ^= digest
        self._note(place, match, slot, entry)

    def _drop(self, place: int, match: int, slot: int) -> None:
        self.count[place, match] -= 1
        self._sizes[place] -= 1
        self.sum ^= self._digest[slot]
        if match == SIMILAR:
            self.similar[place].drop(slot)
        words = self._confirm[slot].count(b" ")
        if words in self.phrases[place]:
            self.phrases[place][words] -= 1
        erase(self._table, int(self._mark[slot, 0]), slot)
        self._confirm[slot], self._owner[slot], self._digest[slot] = b"", "", 0
        self.expires[slot] = 0
        self._free.append(slot)

    def _note(self, place: int, match: int, slot: int, entry: Entry) -> None:
        listed = list(self.lists.values())[place]
        if listed.kind == "words" and match == NORMALISED:
            words = self._confirm[slot].count(b" ")
            self.phrases[place][words] = self.phrases[place].get(words, 0) + (words > 0)
        if match == SIMILAR and entry.sketch is not None:
            self.similar[place].put(slot, entry.sketch)

    def _grow(self, slot: int) -> None:
        self._confirm.append(b"")
        self._match.append(EXACT)
        self._owner.append("")
        self._digest.append(0)
        if slot == len(self.expires):
            self._mark, self.expires = grown(self._mark, 2 * slot), grown(self.expires, 2 * slot)
        if 2 * (slot + 1) > len(self._table):
            self._table = larger(self._table, 2 * (slot + 1))


@compiled
def _probe(table: Any, mark: Any, expires: Any, hashed: Any, low: int, high: int, now: Any, found: Any) -> None:
    for row in range(len(hashed)):
        if hashed[row, 0] == 0 and hashed[row, 1] == 0:  # nobody
            continue
        slot = find(table, mark, hashed[row, 0] ^ low, hashed[row, 1] ^ high)
        if slot >= 0 and expires[slot] > now[row]:
            found[row] = slot
