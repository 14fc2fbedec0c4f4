"""What do rules and lists cost? 30 rules and 100,000 entries of lists in micro-batches of 512: µs per event, without a broker."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ground
import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from streamapp import pipeline
from streamapp.config import load_pipeline
from streamapp.control.generate import Mix, messages
from streamapp.control.payments import PaymentMix, payments
from streamapp.control.rehearsal import rehearse
from streamapp.control.release import assemble
from streamapp.core.events import Segment
from streamapp.core.lists_entry import Match, encode, entry_of
from streamapp.core.lists_table import ListTable
from streamapp.core.spec import ListSpec, PipelineSpec, RuleSpec

BATCH, BATCHES, ENTRIES, RULES = 512, 40, 100_000, 30
Entries = Sequence[tuple[str, str, Match]]

#: Conditions as people write them: amounts, windows, countries, arithmetic; none of them decides another one away.
PAYMENT_RULES = [
    "amount > {0} and country in ['BR', 'NG', 'RO'] and customer_1h_count > {1}",
    "card_10m_sum_amount > {0} * 3 and merchant_category == 'electronics_{1}'",
    "customer_24h_sum_amount / max(customer_30d_mean_amount, 1) > {0} and not missing(device_id)",
    "is_night == 1 and amount > 2 * customer_before_30d_max_amount + {0}",
    "billing_country != shipping_country and amount > {0} and card_1h_count >= {1}",
]
MESSAGE_RULES = [
    "url_count > {1} and capital_ratio > 0.{1}", "word_count > {0} and exclamation_count > {1}", "language == 'y{1}' and url_count > 1",
    "char_count > {0} * 7 and unique_word_ratio < 0.2", "channel == 'c{1}' and word_count < 3",
]  # fmt: skip


def rules(conditions: Sequence[str], count: int) -> tuple[RuleSpec, ...]:
    """Gives `count` rules of the given shapes, each with limits of its own."""
    texts = [conditions[number % len(conditions)].format(900 - 7 * number, 9 - number // len(conditions)) for number in range(count)]
    return tuple(RuleSpec(code=f"bench_{number}", when=when, route="review", text="bench") for number, when in enumerate(texts))


def table_of(serving: pipeline.Serving, entries: Entries) -> tuple[ListTable, float]:
    """Gives the table after all entries came over the topic, and the seconds that took."""
    made = [
        entry_of(name, serving.spec.lists[name], text, match, owner="o", reason="", added_at=0, expires_at=0)
        for name, text, match in entries
    ]
    records = [(key, encode(entry)) for key, entry in made]
    table = ListTable(serving.spec.lists)
    began = time.process_time()
    for offset, (key, value) in enumerate(records):
        table.apply(offset, key, value)
    return table, time.process_time() - began


def spent(serving: pipeline.Serving, table: ListTable | None, batches: Sequence[Segment]) -> Mapping[str, float]:
    """Gives µs per event of the stages, and how many events lists and rules decided."""
    state, found, events = serving.state.new(), {"lists": 0.0, "rules": 0.0, "explain": 0.0, "all": 0.0}, 0
    for batch in batches:
        plan = pipeline.plan([batch], serving)
        began = time.process_time()
        outcome = pipeline.decide(plan, pipeline.Read(lists=table), [state], serving, 0, time.process_time)
        found["all"] += (time.process_time() - began) * 1e3
        for stage in ("lists", "rules", "explain"):
            found[stage] += outcome.stage_ms.get(stage, 0.0)
        events += len(plan)
    return {stage: ms * 1e3 / events for stage, ms in found.items()}


def cases() -> list[tuple[str, PipelineSpec, Sequence[Any], tuple[RuleSpec, ...], dict[str, ListSpec], Entries]]:
    """Gives name, pipeline, records, rules, lists and entries of each case; about two events of a hundred are on a list."""
    paid = list(payments(BATCH * BATCHES, PaymentMix(seed=11)))
    said = list(messages(BATCH * BATCHES, Mix(seed=11, garbage=0.0)))
    addresses = {msgspec.json.decode(one.value).get("ip") for one in paid[::400]} - {None}
    texts = [msgspec.json.decode(one.value or b"")["text"] for one in said[::50]]
    values = {
        "banned": ListSpec(effect="deny", fields=("customer_id",)), "addresses": ListSpec(effect="deny", fields=("ip",)),
        "trusted": ListSpec(effect="allow", fields=("device_id",)), "asked": ListSpec(),
    }  # fmt: skip
    ids: list[tuple[str, str, Match]] = [("addresses", str(one), "exact") for one in addresses]
    ids += [(name, f"{name}-{number}", "exact") for name in ("banned", "addresses", "trusted") for number in range(ENTRIES // 3)]
    whole = {"known_bad": ListSpec(effect="deny", fields=("text",), kind="content")}
    bad: list[tuple[str, str, Match]] = [("known_bad", text, "normalised") for text in texts]
    bad += [("known_bad", f"bad text number {number} of many", "normalised") for number in range(ENTRIES)]
    near: list[tuple[str, str, Match]] = [("known_bad", text, "similar") for text in texts]
    near += [("known_bad", " ".join(f"w{number * 7919 % 9973 + k * number}" for k in range(12)), "similar") for number in range(20_000)]
    words = {"spoken": ListSpec(effect="deny", fields=("text",), kind="words")}
    phrases: list[tuple[str, str, Match]] = [("spoken", f"word{number} said{number % 7}" if number % 2 else f"word{number}", "normalised")
                                             for number in range(ENTRIES)]  # fmt: skip
    pay, talk = load_pipeline("payments"), load_pipeline("messages")
    return [
        ("payments: 30 rules, ids and addresses on 4 lists", pay, paid, rules(PAYMENT_RULES, RULES), values, ids),
        ("messages: 30 rules, whole texts", talk, said, rules(MESSAGE_RULES, RULES), whole, bad),
        ("messages: 30 rules, words and phrases", talk, said, rules(MESSAGE_RULES, RULES), words, phrases),
        ("messages: 30 rules, similar texts (20,000)", talk, said, rules(MESSAGE_RULES, RULES), whole, near),
    ]


def segment(values: Sequence[bytes | None], keys: Sequence[bytes | None], first: int) -> Segment:
    """Gives records as one poll brings them."""
    n = len(values)
    return Segment("bench.events.v1", 0, 1, np.arange(first, first + n), np.full(n, 1), keys, values, [()] * n)


def main(rounds: int) -> None:
    """Prints the table: each case with and without its rules and lists."""
    shown = Table("case", "entries", "lists", "rules", "explain", "decide, all", "decide without", "to load, s")
    for name, spec, records, more, lists, entries in cases():
        plain = assemble(msgspec.structs.replace(spec, tiers=(), rules=()), {}, b"k" * 16)
        full = assemble(msgspec.structs.replace(spec, tiers=(), rules=more, lists=lists), {}, b"k" * 16)
        rehearse(full)
        table, load_s = table_of(full, entries)
        values, keys = [one.value for one in records], [one.key for one in records]
        batches = [segment(values[at : at + BATCH], keys[at : at + BATCH], at) for at in range(0, len(values), BATCH)]
        with_all = [spent(full, table, batches) for _ in range(rounds + 1)][1:]
        without = [spent(plain, None, batches)["all"] for _ in range(rounds + 1)][1:]
        cells = [ground.spread([one[stage] for one in with_all]) for stage in ("lists", "rules", "explain", "all")]
        cells.append(ground.spread(without))
        shown.add_row(
            name, f"{len(table):,}", *(f"{one['median']:.2f} ({one['least']:.2f} … {one['largest']:.2f})" for one in cells), f"{load_s:.2f}"
        )
    shown.title = f"Processor time in µs per event, micro-batches of {BATCH}; median (least … largest) of {rounds} rounds"
    Console(width=170).print(shown)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    sys.stdout.write(f"{ground.machine()}\n")
    main(given.rounds)
