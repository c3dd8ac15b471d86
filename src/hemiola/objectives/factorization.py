"""Matrix completion with biases: ratings as a product of user and item factors.

Koren, Bell, Volinsky, "Matrix factorization techniques for recommender systems", Computer 2009:

    z_uv ~ mean + b_u + b_v + L_u . R_v
    f = 1/n sum over ratings of  1/2 e^2 + l2/2 (|L_u|^2 + b_u^2 + |R_v|^2 + b_v^2),  e = model - z

The penalty counts with every rating, not once a user or item (L_NZL2 of Gemulla et al., KDD 2011),
so the gradient of one rating stays on its own user and item. There is no other penalty.

==========  =================================  ==========================
symbol      here                               shape
==========  =================================  ==========================
L_u, b_u    row u of the first part of w       (users, rank + 1)
R_v, b_v    row v of the second part of w      (items, rank + 1)
mean        ``mean``, which is not trained     ()
u, v        columns 0 and 1 of X               (n, 2), whole numbers
z_uv        ``y``                              (n,)
==========  =================================  ==========================
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from scipy import sparse

from hemiola.component import component
from hemiola.dataset import Batch, Dataset
from hemiola.errors import DataError
from hemiola.types import Array

_CHUNK = 65_536


@component
class MatrixFactorization:
    """Biased matrix factorisation under squared loss; X holds (user, item) pairs as numbers.

    >>> from hemiola.dataset import make_dataset
    >>> data = make_dataset([[0, 0], [1, 0], [1, 2]], [3.0, 4.0, 5.0], regression=True)
    >>> objective = factorization(data, rank=2)
    >>> objective.users, objective.items, objective.mean
    (2, 3, 4.0)
    >>> objective.predict(np.zeros(5 * 3), data.X)
    array([4., 4., 4.])
    """

    users: Annotated[int, Ge(1)]
    items: Annotated[int, Ge(1)]
    rank: Annotated[int, Ge(1)] = 16
    l2: Annotated[float, Ge(0)] = 0.05
    mean: float = 0.0

    def check(self, data: Dataset) -> None:
        """Raise :class:`~hemiola.errors.DataError` unless the data are ratings of these users and
        items."""
        if data.classes is not None:
            raise DataError(f"{data.name}: ratings are real targets; use regression=True.")
        if data.weight is not None:
            raise DataError(f"{data.name}: ratings have no sample weights; leave them out.")
        if data.is_sparse or data.n_features != 2:
            raise DataError(f"{data.name}: ratings need a table of two columns, user and item.")
        pairs, highest = data.X, np.array([self.users, self.items]) - 1
        if (pairs < 0).any() or (pairs > highest).any() or np.mod(pairs, 1).any():
            raise DataError(
                f"{data.name}: users must be whole numbers below {self.users} and items below "
                f"{self.items}; read_ratings numbers them."
            )

    def init(self, data: Dataset, rng: np.random.Generator) -> Array:
        """Small random factors, so that L_u . R_v has deviation 0.1; no biases.

        Shape ((users + items) (rank + 1),).
        """
        w = rng.standard_normal((self.users + self.items, self.rank + 1))
        w *= np.sqrt(0.1 / np.sqrt(self.rank))
        w[:, -1] = 0
        return w.ravel().astype(data.dtype)

    def factors(self, w: Array) -> tuple[Array, Array]:
        """Users' rows (users, rank + 1) and items' rows (items, rank + 1), as views into w."""
        rows = w.reshape(self.users + self.items, self.rank + 1)
        return rows[: self.users], rows[self.users :]

    def value(self, w: Array, batch: Batch) -> float:
        """The objective on a batch; 0 for an empty one."""
        pairs, z = _ratings(batch)
        if not len(z):
            return 0.0
        u, v = pair_numbers(pairs)
        squares = [np.square(part).sum(axis=1) for part in self.factors(w)]
        penalty = float(squares[0][u].sum() + squares[1][v].sum())
        error = self.predict(w, pairs) - z
        return (0.5 * float(error @ error) + 0.5 * self.l2 * penalty) / len(z)

    def grad(self, w: Array, batch: Batch) -> Array:
        """The gradient (d,), a new array; zeros for an empty batch."""
        pairs, z = _ratings(batch)
        if not len(z):
            return np.zeros_like(w)
        u, v = pair_numbers(pairs)
        L, R = self.factors(w)
        error = (self.predict(w, pairs) - z) / len(z)
        E = sparse.coo_array((error, (u, v)), shape=(self.users, self.items)).tocsr()
        gL, gR = E @ R, E.T @ L
        for g, rows, own in ((gL, L, u), (gR, R, v)):
            g[:, -1] = np.bincount(own, error, len(rows))  # a bias is multiplied by 1
            g += self.l2 / len(z) * np.bincount(own, minlength=len(rows))[:, None] * rows
        return np.concatenate([gL, gR]).ravel().astype(w.dtype, copy=False)

    def predict(self, w: Array, X: Any) -> Array:
        """Ratings (m,) of the pairs X (m, 2)."""
        L, R = self.factors(w)
        u, v = pair_numbers(np.asarray(X))
        z = np.empty(len(u), dtype=w.dtype)
        for start in range(0, len(u), _CHUNK):  # gathered rows should stay in cache
            part = slice(start, start + _CHUNK)
            left, right = L[u[part]], R[v[part]]
            z[part] = np.einsum("ij,ij->i", left[:, :-1], right[:, :-1])
            z[part] += left[:, -1] + right[:, -1]
        return z + z.dtype.type(self.mean)

    def rmse(self, w: Array, data: Dataset) -> float:
        """Root of the mean squared error on the data."""
        return float(np.sqrt(np.square(self.predict(w, data.X) - data.y).mean()))


def factorization(data: Dataset, rank: int = 16, l2: float = 0.05) -> MatrixFactorization:
    """The objective for the users and items of these ratings, and their mean."""
    if data.is_sparse or data.n_features != 2:
        raise DataError(f"{data.name}: ratings need a table of two columns, user and item.")
    users, items = (int(top) + 1 for top in data.X.max(axis=0))
    return MatrixFactorization(users, items, rank, l2, float(data.y.mean(dtype=np.float64)))


def pair_numbers(pairs: Array) -> tuple[Array, Array]:
    """Users (m,) and items (m,) of pairs (m, 2), as numbers to index with."""
    return pairs[:, 0].astype(np.intp), pairs[:, 1].astype(np.intp)


def _ratings(batch: Batch) -> tuple[Array, Array]:
    X, y = batch.data.X, batch.data.y
    return (X, y) if batch.rows is None else (X[batch.rows], y[batch.rows])
