"""Random streams are addressed: equal addresses, equal numbers; other addresses, other numbers."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import hemiola
from hemiola.rng import stream

PURPOSES = ("batches", "order", "draw", "deal", "participation", "compute", "online", "init")


def raw(*address, size=2):
    return tuple(stream(*address).bit_generator.random_raw(size).tolist())


def test_no_two_addresses_share_their_first_numbers():
    addresses = list(product((0, 1, 2**32), PURPOSES, (0, 1, 7), (0, 1, 7), (0, 1)))
    numbers = [number for address in addresses for number in raw(*address, size=4)]
    assert len(set(numbers)) == len(numbers) == 4 * len(addresses)


def test_the_coordinates_are_not_interchangeable():
    assert len({raw(0, "order", *place) for place in ((1, 2, 3), (3, 2, 1), (2, 1, 3))}) == 3
    assert raw(1, "order", 0) != raw(0, "order", 1)


def test_a_long_draw_does_not_run_into_the_neighbours():
    neighbours = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    drawn = [set(raw(0, "order", *place, size=20_000)) for place in neighbours]
    assert len(set.union(*drawn)) == 80_000


def test_the_same_address_gives_the_same_numbers_in_any_order_and_thread():
    addresses = list(product(range(5), PURPOSES, range(5)))
    expected = {address: raw(*address) for address in addresses}
    assert {address: raw(*address) for address in reversed(addresses)} == expected
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda address: raw(*address), addresses))
    assert dict(zip(addresses, found, strict=True)) == expected


def test_drawing_from_one_generator_does_not_advance_another():
    one, other = stream(0, "order", 1), stream(0, "order", 1)
    one.random(100)
    assert tuple(other.bit_generator.random_raw(2).tolist()) == raw(0, "order", 1)


def test_the_numbers_stay_the_same_from_version_to_version():
    assert raw(0, "order", 1, 2) == (5674910391158325044, 13634177962181462504)
    assert raw(7, "deal") == (5701445015183045748, 3058758376484028052)


def test_large_seeds_are_kept_apart():
    seeds = (0, 1, 2**31, 2**32, 2**32 + 1, 2**63 - 1)
    assert len({raw(seed, "order") for seed in seeds}) == len(seeds)


def test_every_purpose_in_the_source_has_numbers_of_its_own():
    source = Path(hemiola.__file__).parent
    text = "\n".join(path.read_text(encoding="utf-8") for path in source.rglob("*.py"))
    purposes = set(re.findall(r'stream\([^"()]*"([a-z-]+)"', text))
    assert {"order", "deal", "draw", "online", "participation", "compute"} <= purposes
    assert len({raw(0, purpose) for purpose in purposes}) == len(purposes)
