"""LIBSVM lines, compiled: from bytes to the arrays of a CSR matrix, in one pass.

A line is ``label [qid:number] index:value ... [# comment]`` between blanks. A label is a number, an
index a whole number without sign of at most 2**31 - 2, and the indices of a line ascend. The text
ends in a line feed.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from hemiola.data.numbers import BAD, GOOD, HARD, number

FINE, LABEL, PAIR, NEGATIVE, HUGE, ORDER, QID = range(7)
"""What is wrong with a token."""

LARGEST = 2**31 - 2

_FEED, _BLANK, _HASH, _COLON = 10, 32, 35, 58


@njit(nogil=True, cache=True)
def count(text):
    """Bounds on the rows and on the stored values: lines, and colons."""
    lines, colons = 0, 0
    for i in range(text.shape[0]):
        lines += text[i] == _FEED
        colons += text[i] == _COLON
    return lines, colons


@njit(nogil=True, cache=True)
def _ends_token(c):
    return c in (_BLANK, _HASH) or 9 <= c <= 13


@njit(nogil=True, cache=True)
def _skip_blanks(text, i):
    while text[i] <= _BLANK and (text[i] == _BLANK or text[i] == 9 or 11 <= text[i] <= 13):
        i += 1
    return i


@njit(nogil=True, cache=True)
def _saturated(text, i, end):
    """A whole number of many digits, or LARGEST + 1 if it is larger than that."""
    index = 0
    while i < end and index <= LARGEST:
        index = index * 10 + (int(text[i]) - 48)
        i += 1
    return index


@njit(nogil=True, cache=True)
def parse(text, y, values, indices, indptr, hard):
    """Fill the arrays from all lines.

    Returns the fault, where its token begins, the rows, the stored values, how many numbers are
    hard, the lowest and the highest index. ``hard`` (m, 2) gets where the hard numbers begin and
    where they belong: place a >= 0 of ``values``, or -1 - i for place i of ``y``.
    """
    stop = text.shape[0]
    i, rows, stored, hards = 0, 0, 0, 0
    lowest, highest = LARGEST + 1, -1
    indptr[0] = 0
    while i < stop:
        i = _skip_blanks(text, i)
        c = text[i]
        if c == _HASH:
            while text[i] != _FEED:
                i += 1
            c = text[i]
        if c == _FEED:
            i += 1
            continue
        token = i
        y[rows], i, state = number(text, i)
        if state == BAD or not _ends_token(text[i]):
            return LABEL, token, rows, stored, hards, lowest, highest
        if state == HARD:
            hard[hards, 0], hard[hards, 1] = token, -1 - rows
            hards += 1
        previous = -1
        while True:
            i = _skip_blanks(text, i)
            token = i
            d = np.uint8(text[i] - np.uint8(48))
            index = 0
            while d < 10:
                index = index * 10 + int(d)
                i += 1
                d = np.uint8(text[i] - np.uint8(48))
            if i == token or text[i] != _COLON:
                c = text[token]
                if c == _HASH:
                    while text[i] != _FEED:
                        i += 1
                    break
                if c == _FEED:
                    break
                if c == 113 and previous < 0:  # q
                    i = _qid(text, token)
                    if i < 0:
                        return QID, token, rows, stored, hards, lowest, highest
                    continue
                fault = NEGATIVE if c == 45 else PAIR
                return fault, token, rows, stored, hards, lowest, highest
            if i - token > 18:
                index = _saturated(text, token, i)
            d = np.uint8(text[i + 1] - np.uint8(48))
            if d < 10 and (text[i + 2] == _BLANK or text[i + 2] == _FEED):  # most common of all
                values[stored], i, state = d, i + 2, GOOD
            else:
                values[stored], i, state = number(text, i + 1)
                if state == BAD or not _ends_token(text[i]):
                    return PAIR, token, rows, stored, hards, lowest, highest
            if index > LARGEST:
                return HUGE, token, rows, stored, hards, lowest, highest
            if index <= previous:
                return ORDER, token, rows, stored, hards, lowest, highest
            if state == HARD:
                hard[hards, 0], hard[hards, 1] = token, stored
                hards += 1
            if previous < 0:
                lowest = min(lowest, index)
            indices[stored] = index
            previous = index
            stored += 1
        highest = max(highest, previous)
        rows += 1
        indptr[rows] = stored
        i += 1
    return FINE, stop, rows, stored, hards, lowest, highest


@njit(nogil=True, cache=True)
def _qid(text, i):
    """Where ``qid:number`` ends; -1 if it is none."""
    if text[i + 1] != 105 or text[i + 2] != 100 or text[i + 3] != _COLON:
        return -1
    i += 4
    first = i
    while 48 <= text[i] <= 57:
        i += 1
    return i if i > first and _ends_token(text[i]) else -1
