"""Seeded events for `payments`: customers at terminals, and three kinds of fraud: large amounts, compromised terminals, stolen cards.

The scenarios are those of the published transaction simulator of the Fraud Detection Handbook (Le Borgne et al., 2022), written from
their description: amounts beyond a limit; everything at a compromised terminal, for weeks; a part of a robbed customer's payments, with
amounts several times the usual ones, for days. Devices, addresses, cards, currencies and bursts are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count as numbers
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from streamapp.control.generate import DEFAULT_START_MS, Generated
from streamapp.control.payments_world import Floats, Ints, Names, World, world_of

DAY_MS = 86_400_000
GENUINE, FRAUD = "genuine", "fraud"
#: Why a payment is fraud, by its code; an analyst would find out, the engine is never told.
SCENARIOS = ("", "large_amount", "compromised_terminal", "stolen_card")
LARGE, COMPROMISED, STOLEN = 1, 2, 3
NOWHERE = "BV"
"""Bouvet Island: it has a country code and no inhabitants, so nothing can be shipped there."""


@dataclass(frozen=True, slots=True)
class PaymentMix:
    """What the stream is made of; shares are met on average."""

    seed: int = 7
    customers: int = 5_000
    terminals: int = 10_000
    large_amount: float = 220.0  #      dollars beyond which a payment is fraud
    huge: float = 0.0003  #             share of payments that are tens to hundreds of times the usual
    compromised: float = 0.0002  #      of all terminals are taken over each day …
    compromised_days: int = 28  #       … for so long
    stolen: float = 0.0006  #           of all customers are robbed each day …
    stolen_days: int = 14  #            … and it goes on for so long
    stolen_part: float = 1 / 3  #       of a robbed customer's payments are the thief's
    stolen_factor: float = 5.0  #       which are so many times the usual amount
    thief_own_device: float = 0.7  #    of the thief's payments come from his own device and address, anywhere
    burst: float = 0.03  #              of the thief's payments are 5 to 7 within two minutes
    away: float = 0.03  #               of honest payments are made outside the neighbourhood
    new_device: float = 0.003  #        of honest payments come from a device never seen before
    bare: float = 0.1  #                of payments name neither device nor address
    slow: float = 0.01  #               of records come up to a minute late
    start_ms: int = DEFAULT_START_MS


@dataclass(slots=True)
class Payments:
    """One day's payments as columns of n rows, in order of arrival."""

    time_ms: Ints
    customer: Ints
    terminal: Ints
    amount: Floats
    card: Names
    device: Names  #    None where unknown
    address: Names  #   None where unknown
    shipping: Names
    scenario: Ints  #   index into SCENARIOS

    def rows(self, chosen: npt.NDArray[Any]) -> Payments:
        """Gives the chosen rows alone, in their order."""
        return Payments(*(getattr(self, name)[chosen] for name in self.__slots__))


def payments(count: int, mix: PaymentMix) -> Iterator[Generated]:
    """Gives `count` records; equal arguments give equal bytes, and a longer stream begins with the shorter one. About 4 µs each.

    Event time starts at `mix.start_ms` and advances as fast as the customers pay: 2.1 payments a customer a day.
    """
    return islice(_records(mix), count)


def event_name(mix: PaymentMix, number: int) -> str:
    """Gives the event_id of the payment of this number in the stream."""
    return f"p{mix.seed}-{number:09d}"


def _records(mix: PaymentMix) -> Iterator[Generated]:
    world = world_of(mix.seed, mix.customers, mix.terminals)
    number = 0
    for day in numbers():
        made = day_of(world, mix, day)
        yield from _encoded(made, world, mix, number)
        number += len(made.time_ms)


def day_of(world: World, mix: PaymentMix, day: int) -> Payments:
    """Gives the payments of one day (0 is the first) with their crimes; thefts that began before the first day are going on."""
    source = world.day_source(day)
    made = _honest(world, mix, source)
    _enlarge(made, world, mix, source)
    _compromise(made, world, mix, day)
    made = _steal(made, world, mix, day, source)
    bare = source.random(len(made.time_ms)) < mix.bare
    made.device[bare], made.address[bare] = None, None
    made.amount = np.maximum(0.01, np.round(made.amount, 2))
    n = len(made.time_ms)
    delay = source.exponential(300.0, n) + np.where(source.random(n) < mix.slow, source.uniform(0, 60_000, n), 0)
    made.time_ms += mix.start_ms + day * DAY_MS
    return made.rows(np.argsort(made.time_ms + delay, kind="stable"))


def _honest(world: World, mix: PaymentMix, source: np.random.Generator) -> Payments:
    """Everyone pays around noon, mostly at home, mostly with one card from one device."""
    customer = np.repeat(np.arange(world.customers), source.poisson(world.rate))
    time = np.rint(source.normal(43_200_000, 20_000_000, len(customer))).astype(np.int64)
    awake = (time >= 0) & (time < DAY_MS)
    customer, time = customer[awake], time[awake]
    n = len(customer)
    usual = world.usual[customer]
    amount = source.normal(usual, usual / 2)
    amount = np.where(amount > 0, amount, source.uniform(0, 2 * usual))
    place = np.where(source.random(n) < mix.away, source.integers(0, world.places, n), world.place[customer])
    terminal = _terminal_in(place, world, source)
    card = world.card_name[2 * customer + (source.random(n) < 0.15)]
    device = world.device_name[2 * customer + (source.random(n) < 0.2)]
    fresh = np.flatnonzero(source.random(n) < mix.new_device)
    device[fresh] = [f"n{number:012d}" for number in source.integers(0, 10**12, len(fresh)).tolist()]
    on_the_road = source.random(n) < 0.25
    carrier = world.carrier_address[source.integers(0, len(world.carrier_address), n)]
    address = np.where(on_the_road, carrier, world.home_address[customer])
    shipping = world.country_of_place[world.place[customer]]
    return Payments(time, customer, terminal, amount, card, device, address, shipping, np.zeros(n, np.int64))


def _terminal_in(place: Ints, world: World, source: np.random.Generator) -> Ints:
    """Gives one terminal in each place."""
    among = (world.terminals - 1 - place) // world.places + 1
    chosen: Ints = place + world.places * (source.random(len(place)) * among).astype(np.int64)
    return chosen


def _enlarge(made: Payments, world: World, mix: PaymentMix, source: np.random.Generator) -> None:
    huge = np.flatnonzero(source.random(len(made.amount)) < mix.huge)
    made.amount[huge] = world.usual[made.customer[huge]] * 10.0 ** source.uniform(1, 3, len(huge))
    made.scenario[made.amount > mix.large_amount] = LARGE


def _compromise(made: Payments, world: World, mix: PaymentMix, day: int) -> None:
    taken = np.zeros(world.terminals, np.bool_)
    for begun in range(day - mix.compromised_days + 1, day + 1):
        taken[world.compromised_on(begun, mix.compromised)] = True
    made.scenario[taken[made.terminal]] = COMPROMISED


def _steal(made: Payments, world: World, mix: PaymentMix, day: int, source: np.random.Generator) -> Payments:
    """A thief has one device and one address per customer robbed; some of his payments come in bursts, which adds rows."""
    theft = np.full(world.customers, -1, np.int64)  # which theft, -1: none
    for begun in range(day - mix.stolen_days + 1, day + 1):
        robbed = world.robbed_on(begun, mix.stolen)
        theft[robbed] = (begun + mix.stolen_days) * world.customers + robbed
    of = theft[made.customer]
    his = np.flatnonzero((of >= 0) & (source.random(len(of)) < mix.stolen_part))
    made.amount[his] *= mix.stolen_factor
    made.scenario[his] = STOLEN
    own = his[source.random(len(his)) < mix.thief_own_device]
    made.device[own] = [f"x{number:012d}" for number in of[own].tolist()]
    made.address[own] = world.thief_address[of[own] % len(world.thief_address)]
    made.terminal[own] = source.integers(0, world.terminals, len(own))
    made.shipping[own[source.random(len(own)) < 0.02]] = NOWHERE
    times = np.ones(len(of), np.int64)
    times[his] = np.where(source.random(len(his)) < mix.burst, source.integers(5, 8, len(his)), 1)
    repeated = made.rows(np.repeat(np.arange(len(of)), times))
    again = np.repeat(times, times) > 1
    repeated.time_ms = repeated.time_ms + np.where(again, source.integers(0, 110_000, len(again)), 0)
    return repeated


def _encoded(made: Payments, world: World, mix: PaymentMix, first: int) -> Iterator[Generated]:
    place = made.terminal % world.places
    home = world.country_of_place[world.place[made.customer]]
    columns = (
        world.customer_name[made.customer], made.card, world.terminal_name[made.terminal], world.merchant_name[made.terminal],
        world.category[made.terminal], world.currency_of_place[place], world.country_of_place[place], made.address, made.device, home,
        made.shipping,
    )  # fmt: skip
    plain = (made.time_ms, made.amount, made.scenario)
    rows = zip(numbers(first), *(column.tolist() for column in (*plain, *columns)), strict=False)
    start, dumps = f"p{mix.seed}-", orjson.dumps
    for (
        number, time_ms, amount, scenario, customer, card, terminal, merchant, category, currency, country, ip, device, billing, shipping,
    ) in rows:  # fmt: skip
        event = {
            "event_id": f"{start}{number:09d}", "event_time": time_ms, "customer_id": customer, "card_id": card, "terminal_id": terminal,
            "merchant_id": merchant, "merchant_category": category, "amount": amount, "currency": currency, "country": country, "ip": ip,
            "device_id": device, "billing_country": billing, "shipping_country": shipping,
        }  # fmt: skip
        label = FRAUD if scenario else GENUINE
        event["label"], event["scenario"] = label, SCENARIOS[scenario]
        yield Generated(customer.encode(), dumps(event), label)
