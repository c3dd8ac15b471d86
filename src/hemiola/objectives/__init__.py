"""What is minimised: mean loss over a batch plus regularisation, as a function of a flat vector."""

from typing import TYPE_CHECKING, Any

from hemiola.extras import require
from hemiola.objectives.factorization import MatrixFactorization, factorization
from hemiola.objectives.linear import LinearObjective, hinge, logistic, softmax, squared

if TYPE_CHECKING:
    from hemiola.objectives.torch import Torch

__all__ = [
    "LinearObjective",
    "MatrixFactorization",
    "Torch",
    "factorization",
    "hinge",
    "logistic",
    "softmax",
    "squared",
]


def __getattr__(name: str) -> Any:
    """:class:`~hemiola.objectives.torch.Torch` needs PyTorch, and only who asks for it does."""
    if name != "Torch":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("torch", "torch")
    from hemiola.objectives.torch import Torch

    return Torch
