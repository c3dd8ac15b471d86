"""Data laid out for compiled loops over whole passes, and these loops.

The compiler is imported when the first kernel is used, not before.
"""

from hemiola.kernels.rows import Dense, Rows, Sparse

__all__ = ["Dense", "Rows", "Sparse"]
