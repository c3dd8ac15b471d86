"""Decimal numbers in bytes, compiled: the double nearest to the text, as Python's ``float`` gives.

Numbers of up to 15 digits with small exponents are exact in one multiplication or division
(Clinger, PLDI 1990); all others of up to 19 digits go through a 128-bit product with a power of
five (Lemire, "Number Parsing at a Gigabyte per Second", 2021; Mushtak and Lemire, 2023, for why no
more is needed). What is left - more digits, the edges of the range - is named HARD and is for
``float`` itself.

The text must end in a byte that is in no number, such as a line feed.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

GOOD, BAD, HARD = 0, 1, 2

_LEAST, _MOST = -342, 308
_U = np.uint64
_LOW = _U(0xFFFFFFFF)
_HALF = _U(32)
_ONE = _U(1)
_ALL = _U(0xFFFFFFFFFFFFFFFF)
_UNSURE = _U(0x1FF)  # below the 55 bits that a double and its rounding need
_TENS = np.array([10.0**k for k in range(23)])


def _power(q):
    """The 128 leading bits of 5**q, so rounded that a product errs to one side only."""
    five = 5 ** abs(q)
    if q >= 0:
        shift = 128 - five.bit_length()
        return five << shift if shift >= 0 else five >> -shift
    bits = (five - 1).bit_length()
    c = (1 << (bits + 127 if q >= -27 else 2 * bits + 128)) // five + 1
    return c >> max(0, c.bit_length() - 128)


_POWERS = np.array(
    [[_power(q) >> 64, _power(q) & (2**64 - 1)] for q in range(_LEAST, _MOST + 1)], dtype=np.uint64
)


@njit(nogil=True, cache=True)
def _product(a, b):
    """a b as (high, low)."""
    a0, a1, b0, b1 = a & _LOW, a >> _HALF, b & _LOW, b >> _HALF
    low, middle, other = a0 * b0, a1 * b0, a0 * b1
    carry = (low >> _HALF) + (middle & _LOW) + (other & _LOW)
    high = a1 * b1 + (middle >> _HALF) + (other >> _HALF) + (carry >> _HALF)
    return high, (carry << _HALF) | (low & _LOW)


@njit(nogil=True, cache=True)
def _leading_zeros(m):
    n = 0
    for step in (32, 16, 8, 4, 2, 1):
        if m >> _U(64 - step) == _U(0):
            n += step
            m = m << _U(step)
    return n


@njit(nogil=True, cache=True)
def nearest(m, q):
    """The double nearest to m 10**q, for 0 < m < 2**64; NaN where ``float`` must decide."""
    if q < _LEAST or q > _MOST:
        return math.nan
    zeros = _leading_zeros(m)
    m = m << _U(zeros)
    high, low = _product(m, _POWERS[q - _LEAST, 0])
    if high & _UNSURE == _UNSURE:
        more, _ = _product(m, _POWERS[q - _LEAST, 1])
        low = low + more
        if low < more:
            high = high + _ONE
    if low == _ALL and (q < -27 or q > 55):
        return math.nan
    top = np.int64(high >> _U(63))
    kept = high >> _U(top + 9)  # 54 bits: those of a double and one to round by
    exponent = ((217706 * q) >> 16) + 63 + top - zeros
    if exponent < -1021 or exponent > 1022:  # subnormal, or nearly infinite
        return math.nan
    halfway = low <= _ONE and -4 <= q <= 23 and kept & _U(3) == _ONE
    if halfway and kept << _U(top + 9) == high:
        kept = kept & ~_ONE  # to even
    kept = (kept + (kept & _ONE)) >> _ONE
    return math.ldexp(np.float64(np.int64(kept)), exponent - 52)


@njit(nogil=True, cache=True)
def number(text, i):
    """(value, where it ends, GOOD, BAD or HARD) for what begins at ``i``."""
    negative = text[i] == 45
    if negative or text[i] == 43:
        i += 1
    first = i
    while text[i] == 48:
        i += 1
    significant = i
    m = np.uint64(0)
    d = np.uint8(text[i] - np.uint8(48))
    while d < 10:
        m = m * _U(10) + _U(d)
        i += 1
        d = np.uint8(text[i] - np.uint8(48))
    digits = i - significant
    places = 0
    any_digit = i > first
    if text[i] == 46:
        i += 1
        begin = i
        if digits == 0:
            while text[i] == 48:
                i += 1
        significant = i
        d = np.uint8(text[i] - np.uint8(48))
        while d < 10:
            m = m * _U(10) + _U(d)
            i += 1
            d = np.uint8(text[i] - np.uint8(48))
        digits += i - significant
        places = i - begin
        any_digit = any_digit or places > 0
    if not any_digit:
        return 0.0, i, BAD
    q = -places
    if text[i] == 101 or text[i] == 69:
        shift, i, fine = _exponent(text, i + 1)
        if not fine:
            return 0.0, i, BAD
        q += shift
    if digits > 19:
        return 0.0, i, HARD
    value = 0.0
    if m != _U(0):
        if m <= _U(9007199254740992) and -22 <= q <= 22:
            value = np.float64(np.int64(m))
            value = value * _TENS[q] if q >= 0 else value / _TENS[-q]
        else:
            value = nearest(m, q)
            if math.isnan(value):
                return 0.0, i, HARD
    return (-value if negative else value), i, GOOD


@njit(nogil=True, cache=True)
def _exponent(text, i):
    """(exponent, where it ends, whether there is one); from 99999 on they are all alike."""
    negative = text[i] == 45
    if negative or text[i] == 43:
        i += 1
    first, value = i, 0
    while 48 <= text[i] <= 57:
        if value < 99999:
            value = value * 10 + (int(text[i]) - 48)
        i += 1
    return (-value if negative else value), i, i > first
