"""Imported by the process that the workers are forked from, so that they find the compiler warm.

The first call of any compiled kernel in a process takes 0.7 s, loaded from the cache or not; the
next kernels take 0.01 s each.
"""

from importlib import import_module

import numpy as np

from hemiola.dataset import Batch, make_dataset

_data = make_dataset(np.eye(2), [0, 1])
for _array in (_data.X, _data.y):
    _array.setflags(write=False)  # as workers see them
_w = np.zeros(3)
_w.setflags(write=False)
import_module("hemiola.objectives").logistic().grad(_w, Batch(_data, np.arange(2)))
