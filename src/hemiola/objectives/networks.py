"""A small zoo: multi-layer perceptrons, AlexNet, a character-level transformer.

Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks",
NIPS 2012; Vaswani et al., "Attention is all you need", NIPS 2017, with normalisation before each
block.

A network is named with its sizes, ``mlp(inputs=64, classes=10, hidden=32)``. ``inputs`` and
``classes`` follow from the data where a network is asked for by its bare name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

import numpy as np
import torch
from torch import nn

from hemiola.dataset import Dataset
from hemiola.errors import DataError, OptionError, nearest
from hemiola.objectives._net import seeded
from hemiola.options import parse_call
from hemiola.types import Array


def mlp(inputs: int, classes: int, hidden: int = 100) -> nn.Module:
    """One hidden layer of rectified linear units."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def mlp2(inputs: int, classes: int, hidden: int = 100, hidden2: int = 100) -> nn.Module:
    """Two hidden layers of rectified linear units."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(),
        nn.Linear(hidden, hidden2), nn.ReLU(),
        nn.Linear(hidden2, classes),
    )  # fmt: skip


def alexnet28(inputs: int = 784, classes: int = 10, width: int = 16) -> nn.Module:
    """AlexNet's layers and its two columns, scaled to grey images of 28 x 28.

    ``width`` is the number of conv1's kernels, a multiple of 4; the others keep AlexNet's ratios.
    """
    if inputs != 784:
        raise DataError(f"alexnet takes images of 28 x 28 = 784 pixels, not {inputs} features.")
    if width % 4:
        raise OptionError(f"alexnet: width must be a multiple of 4, for two columns; not {width}.")
    c2, c3 = 8 * width // 3 // 2 * 2, 4 * width
    full = 16 * width
    return nn.Sequential(
        nn.Conv2d(1, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, c2, 5, padding=2, groups=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU(),
        nn.Conv2d(c3, c3, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(c3, c2, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Flatten(), nn.Dropout(), nn.Linear(9 * c2, full), nn.ReLU(),
        nn.Dropout(), nn.Linear(full, full), nn.ReLU(),
        nn.Linear(full, classes),
    )  # fmt: skip


def alexnet(inputs: int = 3 * 227 * 227, classes: int = 1000) -> nn.Module:
    """AlexNet with its two columns, for colour images of 227 x 227: 60,965,224 parameters."""
    if inputs != 3 * 227 * 227:
        raise DataError(f"alexnet-full takes 3 x 227 x 227 = 154,587 features, not {inputs}.")
    norm = nn.LocalResponseNorm(5, 1e-4, 0.75, 2.0)
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(), norm, nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), norm, nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Flatten(), nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(),
        nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
        nn.Linear(4096, classes),
    )  # fmt: skip


class CharacterTransformer(nn.Module):
    """The next character's scores (m, classes) after contexts (m, inputs) of character numbers."""

    def __init__(
        self, inputs: int, classes: int, width: int = 64, heads: int = 4, layers: int = 2
    ) -> None:
        super().__init__()
        if width % heads:
            raise OptionError(f"charlm: width {width} is no multiple of its {heads} heads.")
        self.characters = nn.Embedding(classes, width)
        self.places = nn.Embedding(inputs, width)
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.scores = nn.Linear(width, classes)
        later = torch.ones(inputs, inputs, dtype=torch.bool).triu(1)
        self.register_buffer("later", later, persistent=False)

    def forward(self, x: Any) -> Any:
        h = self.characters(x.long()) + self.places.weight
        return self.scores(self.norm(self.blocks(h, mask=self.later)[:, -1]))


@dataclass(frozen=True)
class Network:
    """One of the zoo; ``shape`` of a sample as it takes it, None: its features."""

    make: Callable[..., Any]
    shape: tuple[int, ...] | None = None


NETWORKS: Mapping[str, Network] = {
    "mlp": Network(mlp),
    "mlp2": Network(mlp2),
    "alexnet": Network(alexnet28, (1, 28, 28)),
    "alexnet-full": Network(alexnet, (3, 227, 227)),
    "charlm": Network(CharacterTransformer),
}


@dataclass(frozen=True)
class Built:
    """A module, and the shape of a sample; ``text`` names it, if it is of the zoo."""

    module: Any
    shape: tuple[int, ...] | None = None
    text: str | None = None

    def drawn(self, seed: int) -> Any:
        """The module as it is, or with new random parameters if it is of the zoo."""
        return self.module if self.text is None else build(self.text, seed).module


def build(text: str, seed: int = 0) -> Built:
    """A network of the zoo by its name and sizes, its parameters drawn from this seed.

    Raises :class:`~hemiola.errors.OptionError` for names and sizes that make no sense.

    >>> sum(p.numel() for p in build("mlp(inputs=4, classes=3, hidden=2)").module.parameters())
    19
    """
    name, sizes = parse_call(text)
    if name not in NETWORKS:
        raise OptionError(f"there is no network {name!r}; {nearest(name, NETWORKS)}")
    network = NETWORKS[name]
    check_sizes(name, network.make, sizes)
    with seeded(seed):
        return Built(network.make(**sizes), network.shape, text)


def check_sizes(name: str, make: Callable[..., Any], sizes: Mapping[str, Any]) -> None:
    """Raise :class:`~hemiola.errors.OptionError` unless ``make`` takes these, as whole numbers."""
    known = signature(make).parameters
    required = [key for key, p in known.items() if p.default is Parameter.empty]
    for key, value in sizes.items():
        if key not in known:
            raise OptionError(f"{name} has no size {key!r}; {nearest(key, known)}")
        if not isinstance(value, int) or value < 1:
            raise OptionError(f"{name}: {key} must be a whole number of at least 1, not {value!r}.")
    for key in required:
        if key not in sizes:
            raise OptionError(f"{name} needs {', '.join(required)}; {key} is missing.")


def module_for(text: str, inputs: int, outputs: int) -> Any:
    """What ``--objective`` names, for data of these sizes: a full name of the zoo, or what a
    function ``package.module:factory`` returns for ``inputs``, ``classes`` and the sizes given."""
    name, sizes = parse_call(text)
    sizes = {"inputs": inputs, "classes": outputs, **sizes}
    if name in NETWORKS:
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in sizes.items())})"
    package, _, attribute = name.partition(":")
    try:
        factory = getattr(import_module(package), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(f"there is no network {name!r} to be found: {error}.") from error
    with seeded(0):
        return factory(**sizes)


def characters(text: str, context: int = 32, name: str = "text") -> Dataset:
    """A text for a character-level model: sample i holds the ``context`` characters before the i-th
    label as numbers, in alphabetical order of the characters.

    >>> data = characters("abcab", context=2)
    >>> data.X.tolist(), data.classes[data.y].tolist()
    ([[0.0, 1.0], [1.0, 2.0], [2.0, 0.0]], ['c', 'a', 'b'])
    """
    if len(text) <= context or context < 1:
        raise DataError(f"{name}: {len(text)} characters are too few for a context of {context}.")
    alphabet, numbers = np.unique(np.array(list(text)), return_inverse=True)
    windows: Array = np.lib.stride_tricks.sliding_window_view(numbers, context)[:-1]
    y = numbers[context:].astype(np.intp)
    return Dataset(np.ascontiguousarray(windows, dtype=np.float32), y, alphabet, None, name)
