"""Entries of lists: what stands in one, in which form a value or a text is compared, and the records of the lists topic.

A record's key is list/match/hash of the compared form, so that adding an entry again replaces it and a record without a value takes it
away. Whole texts never leave the place where they were added: their record carries hashes and, for similarity, a sketch.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from hashlib import sha256
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.core.errors import ConfigError
from streamapp.core.lists_text import sketches, spelled
from streamapp.core.spec import ListSpec
from streamapp.core.text import text_column
from streamapp.core.windows_index import hash_bytes, joined

Bytes = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]

Match = Literal["exact", "normalised", "similar"]
MATCHES: tuple[Match, ...] = ("exact", "normalised", "similar")
EXACT, NORMALISED, SIMILAR = range(3)

#: The ways in which entries of a list can be compared, by its kind; the first is what an entry that names none gets.
MATCHES_OF: dict[str, tuple[Match, ...]] = {
    "values": ("exact", "normalised"), "words": ("normalised",), "content": ("normalised", "exact", "similar"),
}  # fmt: skip

#: Longest entry in characters; longer than any id, and than texts by which anybody could be recognised again.
ENTRY_LENGTH_MAX = 100_000


class Entry(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One entry as it stands on the topic; `added_at` and `expires_at` in epoch ms, 0: does not expire."""

    list: str
    match: Match
    added_at: int
    text: str | None = None  #         values and words: the form that is compared
    sha256: str | None = None  #       whole texts: of the form that is compared
    sketch: tuple[int, ...] | None = None
    expires_at: int = 0
    owner: str = ""
    reason: str = ""  #                for those who keep the list; no verdict carries it


_SPACE = re.compile(r"\s")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode


def normal(value: str) -> str:
    """Gives an id or a word as it is compared when case, width and space do not matter: NFKC, case-folded, single-spaced."""
    return " ".join(unicodedata.normalize("NFKC", value).casefold().split())


def compared(kind: str, match: Match, text: str) -> bytes:
    """Gives the bytes of one value or text that are compared under `match`; empty where nothing is left to compare."""
    if kind == "values":
        return (text if match == "exact" else normal(text)).encode("utf-8", "surrogatepass")
    column = text_column([text])
    if kind == "content" and match == "exact":
        return column.raw.tobytes()
    return spelled(column.folded, column.folded_start).data.tobytes()


def key_of(name: str, match: Match, form: bytes) -> bytes:
    """Gives the record key of an entry."""
    low, high = hash_bytes(np.frombuffer(form, np.uint8), np.array([0, len(form)]))[0].tolist()
    return b"%b/%b/%016x%016x" % (name.encode(), match.encode(), high & (2**64 - 1), low & (2**64 - 1))


def entry_of(
    name: str, listed: ListSpec, text: str, match: Match | None, *, owner: str, reason: str, added_at: int, expires_at: int
) -> tuple[bytes, Entry]:
    """Takes what a person puts on a list; gives the record's key and the entry. Raises ConfigError that names what is wrong with it."""
    known = MATCHES_OF[listed.kind]
    match = match or known[0]
    if match not in known:
        raise ConfigError(f"list {name} holds {listed.kind}, which are never compared as {match!r}", f"take one of {', '.join(known)}")
    if len(text) > ENTRY_LENGTH_MAX:
        raise ConfigError(f"an entry of list {name} has {len(text)} characters", f"at most {ENTRY_LENGTH_MAX} are compared; cut it")
    form = compared(listed.kind, match, text)
    if not form:
        raise ConfigError(f"an entry of list {name} is empty, or nothing of it is left to compare", "write at least one letter or digit")
    entry = Entry(name, match, added_at, expires_at=expires_at, owner=owner or listed.owner, reason=reason)
    if listed.kind == "content":
        sketch = tuple(sketches(np.frombuffer(form, np.uint8), np.array([0, len(form)]))[0].tolist()) if match == "similar" else None
        entry = msgspec.structs.replace(entry, sha256=sha256(form).hexdigest(), sketch=sketch)
    else:
        entry = msgspec.structs.replace(entry, text=form.decode("utf-8", "surrogatepass"))
    return key_of(name, match, form), entry


def encode(entry: Entry) -> bytes:
    """Gives a record's value."""
    return _encode(entry)


def decode(key: bytes | None, value: bytes | None) -> tuple[str, int, int, int, Entry | None]:
    """Takes a record; gives list, match, the two halves of the hash, and the entry, None where it is taken away. Raises ValueError."""
    try:
        name, match, digits = (key or b"").decode().split("/")
        number = int(digits, 16)
        place = MATCHES.index(match)
        entry = None if value is None else _decode(value)
    except msgspec.MsgspecError as failure:
        raise ValueError(f"is no entry of a list: {failure}") from None
    except ValueError:
        raise ValueError("is no entry of a list: its key is not list/way of comparing/hash") from None
    if len(digits) != 32 or (entry is not None and (entry.list, entry.match) != (name, match)):
        raise ValueError("has a key that is not that of its entry")
    low, high = np.array([number & (2**64 - 1), number >> 64], np.uint64).view(np.int64).tolist()
    return name, place, low, high, entry


def confirmation(entry: Entry) -> bytes:
    """Gives what a value that has the entry's hash must also be: its bytes, or of a text the SHA-256."""
    if entry.sha256 is not None:
        return bytes.fromhex(entry.sha256)
    return (entry.text or "").encode("utf-8", "surrogatepass")


def normal_forms(values: Sequence[str]) -> tuple[Bytes, Int64]:
    """Takes n values ("" is nobody); gives the bytes of `normal` of each, end to end, and the n + 1 starts."""
    text = "".join(values)
    if not text.isascii():
        return joined([normal(value) for value in values])
    if _SPACE.search(text):
        return joined([" ".join(value.lower().split()) for value in values])
    return np.frombuffer(text.lower().encode(), np.uint8), joined(values)[1]
