"""The aggregation module: what the server does with what the workers send."""

from hemiola.aggregate.average import Average
from hemiola.aggregate.block_momentum import BlockMomentum
from hemiola.aggregate.center import Center
from hemiola.aggregate.consensus import Balance, Consensus, Stopping
from hemiola.aggregate.descend import Descend
from hemiola.aggregate.dual_sum import DualSum
from hemiola.aggregate.outer_step import OuterStep
from hemiola.aggregate.reduce import Sum, WeightedMean
from hemiola.aggregate.sharded import Sharded

__all__ = [
    "Average",
    "Balance",
    "BlockMomentum",
    "Center",
    "Consensus",
    "Descend",
    "DualSum",
    "OuterStep",
    "Sharded",
    "Stopping",
    "Sum",
    "WeightedMean",
]
