"""The network of a simulated cluster: each worker's link to the server."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, NamedTuple, Protocol, runtime_checkable

from annotated_types import Ge, Gt
from pydantic import AllowInfNan

from hemiola.component import component
from hemiola.engines._compute import NotNegative
from hemiola.errors import OptionError

Latency = Annotated[float, Ge(0)]
Bandwidth = Annotated[float, Gt(0), AllowInfNan(True)]


class Link(NamedTuple):
    """``latency`` in seconds a message, ``bandwidth`` in bytes a second."""

    latency: float
    bandwidth: float


@runtime_checkable
class Network(Protocol):
    """Who is linked to the server in which way. Links of one tier are alike in kind."""

    @property
    def tiers(self) -> Sequence[str]:
        """Their names, nearest first."""
        ...

    def tier(self, worker: int) -> int:
        """Which of them a worker's messages cross."""
        ...

    def link(self, worker: int) -> Link:
        """A worker's link to the server."""
        ...


@component
class Flat:
    """All links are alike.

    >>> Flat(latency=1e-3).link(7)
    Link(latency=0.001, bandwidth=inf)
    """

    latency: Latency = 0.0
    bandwidth: Bandwidth = math.inf

    @property
    def tiers(self) -> Sequence[str]:
        return ("network",)

    def tier(self, worker: int) -> int:
        return 0

    def link(self, worker: int) -> Link:
        return Link(self.latency, self.bandwidth)


@component
class Tiers:
    """Racks of ``rack`` workers in sites of ``site`` racks; the server is in rack 0 of site 0.

    Worker k is in rack k // rack. Its messages take the latency and the bandwidth of the tier that
    they cross: ``rack`` from the server's rack, ``site`` from another rack of its site, ``wide``
    from another site.

    >>> network = Tiers(rack=2, site=2)
    >>> [network.tiers[network.tier(worker)] for worker in range(5)]
    ['rack', 'rack', 'site', 'site', 'wide']
    """

    rack: Annotated[int, Ge(1)] = 16
    site: Annotated[int, Ge(1)] = 4
    rack_latency: Latency = 5e-5
    rack_bandwidth: Bandwidth = 1.25e9
    site_latency: Latency = 2e-4
    site_bandwidth: Bandwidth = 1.25e9
    wide_latency: Latency = 2e-2
    wide_bandwidth: Bandwidth = 1.25e7

    @property
    def tiers(self) -> Sequence[str]:
        return ("rack", "site", "wide")

    def tier(self, worker: int) -> int:
        rack = worker // self.rack
        return 0 if rack == 0 else 1 if rack < self.site else 2

    def link(self, worker: int) -> Link:
        latencies = (self.rack_latency, self.site_latency, self.wide_latency)
        bandwidths = (self.rack_bandwidth, self.site_bandwidth, self.wide_bandwidth)
        tier = self.tier(worker)
        return Link(latencies[tier], bandwidths[tier])


@component
class Links:
    """Every worker's own latency; after the last, the first comes again. One bandwidth.

    >>> Links("0.001,0.002").link(2)
    Link(latency=0.001, bandwidth=inf)
    """

    latency: NotNegative = field(default=(0.0,))
    bandwidth: Bandwidth = math.inf

    def __post_init__(self) -> None:
        if not self.latency:
            raise OptionError("Links: give at least one latency.")

    @property
    def tiers(self) -> Sequence[str]:
        return ("network",)

    def tier(self, worker: int) -> int:
        return 0

    def link(self, worker: int) -> Link:
        return Link(self.latency[worker % len(self.latency)], self.bandwidth)
