"""Who pays where in generated `payments`: customers with cards, devices and addresses, terminals with merchants, and who is robbed when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Names = npt.NDArray[np.object_]

#: Country and currency of a neighbourhood, the larger ones more than once.
COUNTRIES = (("US", "USD"), ("US", "USD"), ("US", "USD"), ("GB", "GBP"), ("DE", "EUR"), ("FR", "EUR"), ("PL", "PLN"), ("JP", "JPY"))
CATEGORIES = ("grocery", "fuel", "restaurant", "travel", "electronics", "fashion", "pharmacy", "gaming", "home", "services")
TERMINALS_PER_PLACE = 40
CARRIER_ADDRESSES, THIEF_ADDRESSES = 200, 50
#: Tags of the seeded sources, so that a day's payments and a day's crimes are drawn apart.
_WORLD, _DAY, _COMPROMISED, _STOLEN, _LABELS = range(5)


@dataclass(frozen=True, slots=True)
class World:
    """What stays the same for the whole stream; customers and terminals are numbers, and columns say what they are."""

    seed: int
    customers: int
    terminals: int
    places: int  #             neighbourhoods; terminal t stands in place t % places
    place: Ints  #             of each customer
    rate: Floats  #            payments a day
    usual: Floats  #           mean amount, US dollars
    country_of_place: Names
    currency_of_place: Names
    customer_name: Names
    card_name: Names  #        2 per customer
    device_name: Names  #      2 per customer
    home_address: Names
    terminal_name: Names
    merchant_name: Names  #    of each terminal
    category: Names  #         of each terminal
    carrier_address: Names  #  shared by everyone who is on the road
    thief_address: Names

    def day_source(self, day: int) -> np.random.Generator:
        """Gives the seeded source of one day's payments."""
        return np.random.default_rng([self.seed, _DAY, day])

    def label_source(self, day: int) -> np.random.Generator:
        """Gives the seeded source of what is found out about one day's payments."""
        return np.random.default_rng([self.seed, _LABELS, day])

    def compromised_on(self, day: int, share: float) -> Ints:
        """Gives the terminals that thieves take over on this day; `share` of all on average."""
        return self._struck(_COMPROMISED, day, self.terminals, share)

    def robbed_on(self, day: int, share: float) -> Ints:
        """Gives the customers whose cards are stolen on this day; `share` of all on average."""
        return self._struck(_STOLEN, day, self.customers, share)

    def _struck(self, tag: int, day: int, among: int, share: float) -> Ints:
        source = np.random.default_rng([self.seed, tag, day + 1_000_000])  # days before the stream's first are below 0
        return source.integers(0, among, source.poisson(share * among))


def world_of(seed: int, customers: int, terminals: int) -> World:
    """Draws the world of one seed; equal arguments give equal worlds. Customers pay 0.2 to 4 times a day, 5 to 100 dollars on average."""
    source = np.random.default_rng([seed, _WORLD])
    places = max(1, terminals // TERMINALS_PER_PLACE)
    of_place = source.integers(0, len(COUNTRIES), places)
    merchant = source.integers(0, max(1, terminals // 3), terminals)
    trade = source.integers(0, len(CATEGORIES), terminals + 1)
    return World(
        seed, customers, terminals, places,
        place=source.integers(0, places, customers),
        rate=source.uniform(0.2, 4.0, customers),
        usual=source.uniform(5.0, 100.0, customers),
        country_of_place=_picked([country for country, _ in COUNTRIES], of_place),
        currency_of_place=_picked([currency for _, currency in COUNTRIES], of_place),
        customer_name=_named(customers, lambda c: f"c{c:06d}"),
        card_name=_named(2 * customers, lambda k: f"k{k // 2:06d}{k % 2}"),
        device_name=_named(2 * customers, lambda d: f"d{d // 2:06d}{d % 2}"),
        home_address=_named(customers, lambda c: f"198.18.{c // 2 // 250 % 256}.{c // 2 % 250}"),  # two to a household
        terminal_name=_named(terminals, lambda t: f"t{t:06d}"),
        merchant_name=_picked([f"m{m:05d}" for m in range(terminals)], merchant),
        category=_picked(CATEGORIES, trade[merchant]),
        carrier_address=_named(CARRIER_ADDRESSES, lambda a: f"198.19.0.{a}"),
        thief_address=_named(THIEF_ADDRESSES, lambda a: f"192.0.2.{a + 60}"),
    )  # fmt: skip


def _named(count: int, name: Callable[[int], str]) -> Names:
    return np.array([name(number) for number in range(count)], object)


def _picked(names: list[str] | tuple[str, ...], places: Ints) -> Names:
    return np.array(names, object)[places]
