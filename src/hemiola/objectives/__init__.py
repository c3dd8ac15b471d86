"""What is minimised: mean loss over a batch plus regularisation, as a function of a flat vector."""

from hemiola.objectives.factorization import MatrixFactorization, factorization
from hemiola.objectives.linear import LinearObjective, hinge, logistic, softmax, squared

__all__ = [
    "LinearObjective",
    "MatrixFactorization",
    "factorization",
    "hinge",
    "logistic",
    "softmax",
    "squared",
]
