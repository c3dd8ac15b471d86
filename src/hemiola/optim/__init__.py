"""Local and server optimisers, and learning-rate schedules."""

from hemiola.optim.rules import SGD, Adagrad, Adam, AdamW, HeavyBall, Nesterov
from hemiola.optim.schedules import Constant, Cosine, InverseSqrt, Schedule, Step, WarmUp
from hemiola.optim.server import FedAdagrad, FedAdam, FedYogi

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "FedAdagrad",
    "FedAdam",
    "FedYogi",
    "HeavyBall",
    "InverseSqrt",
    "Nesterov",
    "Schedule",
    "Step",
    "WarmUp",
]
