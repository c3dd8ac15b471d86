"""Hybrid groups: synchronous inside, asynchronous across.

The groups of Hadjis, Zhang, Mitliagkas, Iter, Ré, "Omnivore: An Optimizer for Multi-device Deep
Learning on CPUs and GPUs", arXiv 1606.04487, 2016, and of Hsieh et al., "Gaia: Geo-Distributed
Machine Learning Approaching LAN Speeds", NSDI 2017: workers of similar speed form a group; no group
waits for a slower one, and staleness falls from K - 1 to G - 1.

    group q, members M_q:   (w, version) = pull();  S/B = mean gradient over all members' batches
                            push(S/B, weight B/B_ref, version)
    server:                 staleness = version - version read;  any asynchronous rule

=========  ==========================================  =========
symbol     here                                        shape
=========  ==========================================  =========
M_q        ``communicate.groups[q]``
S/B        ``reduce`` over the members                 (d,)
B_ref      samples behind a group of mean size
B/B_ref    factor of the gradient, ``scale="linear"``
=========  ==========================================  =========

With one group this is the synchronous rule, with a group a worker the asynchronous one.

*Inside* may be any synchronous rule. A group of plain SGD sends its joined gradient. Any other - or
several ``rounds`` of any - runs on a server of the group's own, which begins each exchange at the
model that the group read; the group sends the change w_read - w as its gradient, so that SGD with
``outer.lr=1`` adds it. What that server remembers, BMUF's momentum, begins anew at each exchange;
what the workers remember stays.

*Across* may be any asynchronous rule whose message is a gradient, or elastic averaging: there the
group keeps its own model between exchanges, and is drawn to the centre.

Who works together is measured (:mod:`hemiola.grouping`). Shards are dealt by speed, so that a slow
group's samples count as often as others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from hemiola.aggregate import Descend
from hemiola.algorithm import Algorithm, MiniBatch
from hemiola.algorithms.asgd import asgd
from hemiola.algorithms.easgd_async import ElasticExchange
from hemiola.algorithms.ssgd import ssgd
from hemiola.algorithms.streaming_diloco import FragmentSteps
from hemiola.communicate import Asynchronous, Grouped, Rounds, Synchronous
from hemiola.contracts import Local, Partition
from hemiola.errors import OptionError
from hemiola.grouping import ByRatio, Grouping, Groups, Measured
from hemiola.local import Accumulate, Gradient
from hemiola.partition import BySpeed
from hemiola.penalty import Proximal

PAPER = "Hadjis et al., 2016"


def hybrid(
    inner: Algorithm = ssgd(batch=MiniBatch(32)),
    outer: Algorithm = asgd(),
    rounds: Annotated[int, Ge(1)] = 1,
    grouping: Grouping = ByRatio(),
    groups: Groups | str | None = None,
    drift: Annotated[float, Gt(0)] | None = 0.2,
    scale: Literal["linear", "equal"] = "linear",
    partition: Partition = BySpeed(),
) -> Algorithm:
    """Hybrid groups: workers of similar speed are synchronous, groups asynchronous.

    ``inner`` and ``outer`` are algorithms, a synchronous and an asynchronous one; ``rounds`` of the
    inner one lie between two exchanges. ``groups``: who works together, also as text,
    ``0,1/2,3``; None: as measured before the run.

    >>> hybrid(groups=((0, 1), (2,))).communicate.groups
    ((0, 1), (2,))
    """
    _check(inner, outer)
    size = getattr(getattr(inner.local, "batch", None), "size", 1)
    if isinstance(partition, BySpeed) and (size is None or size < 1):
        raise OptionError(
            "hybrid: shards are dealt by speed, so a batch must be a number of samples, such as "
            "batch_size=32, and not a share of the shard."
        )
    assert isinstance(outer.communicate, Asynchronous)
    joined = rounds == 1 and isinstance(inner.local, Gradient)
    joined = joined and isinstance(inner.aggregate, Descend)
    direct = joined and not isinstance(outer.aggregate, ElasticExchange)
    return Algorithm(
        name="hybrid",
        partition=partition,
        local=_local(inner.local, outer.local) if direct else inner.local,
        communicate=Grouped(
            groups=_parsed(groups), rule=grouping, drift=drift, scale=scale,
            max_lead=outer.communicate.max_lead,
            inside=None if direct else Rounds(inner.aggregate, rounds),
        ),
        reduce=inner.reduce,
        aggregate=outer.aggregate,
    )  # fmt: skip


def _parsed(groups: Groups | str | None) -> Groups | None:
    """Groups from text: workers apart by commas, groups by slashes."""
    if not isinstance(groups, str):
        return groups
    try:
        return tuple(tuple(int(k) for k in group.split(",")) for group in groups.split("/"))
    except ValueError:
        raise OptionError(
            f"hybrid: groups are written as 0,1/2,3 - workers apart by commas, groups by slashes; "
            f"not as {groups!r}."
        ) from None


def _local(inner: Local, outer: Local) -> Local:
    """What members do for a rule across: Downpour's gather several gradients."""
    if isinstance(inner, Gradient) and isinstance(outer, Accumulate):
        return replace(outer, batch=inner.batch)
    return inner


def _is_proximal(algorithm: Algorithm) -> bool:
    return isinstance(algorithm.local, Proximal) or isinstance(algorithm.aggregate, Proximal)


def _check(inner: Algorithm, outer: Algorithm) -> None:
    alone = isinstance(inner.local, FragmentSteps) or _is_proximal(inner)
    if inner.communicate != Synchronous() or alone:
        raise OptionError(
            f"hybrid: {inner.name} cannot work inside groups, where all members take part in "
            "every round and begin at the group's model; use ssgd, model-averaging, bmuf, easgd or "
            "another synchronous rule of that kind."
        )
    sends = isinstance(outer.local, Gradient | Accumulate)
    sends = sends or isinstance(outer.aggregate, ElasticExchange)
    if not isinstance(outer.communicate, Asynchronous) or not sends:
        raise OptionError(
            f"hybrid: {outer.name} cannot work across groups; use asgd, ssp, easgd-async, "
            "adadelay, adaptive-revision, dc-asgd or downpour."
        )
    if outer.communicate.fetch_every != 1:
        raise OptionError("hybrid: groups read before every round; use n_fetch = n_push.")


def regrouped(algorithm: Algorithm, groups: Groups, seconds: Measured) -> Algorithm:
    """The algorithm with groups as measured, and shards dealt by their speeds if they are to be."""
    assert isinstance(algorithm.communicate, Grouped)
    partition = algorithm.partition
    if isinstance(partition, BySpeed):
        fastest = min(seconds.rounds)
        share = {k: fastest / t for g, t in zip(groups, seconds.rounds, strict=True) for k in g}
        partition = replace(partition, speeds=tuple(share[k] for k in sorted(share)))
    communicate = replace(algorithm.communicate, groups=groups, measured=seconds)
    return replace(algorithm, communicate=communicate, partition=partition)
