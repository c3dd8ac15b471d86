"""Wall time that can be stopped while nobody works for the run."""

from __future__ import annotations

from time import perf_counter


class WallClock:
    """Seconds since the start, without the pauses."""

    def __init__(self) -> None:
        self._offset = -perf_counter()
        self._paused_at: float | None = None

    def set(self, seconds: float) -> None:
        self._offset = seconds - perf_counter()

    def now(self) -> float:
        return (perf_counter() if self._paused_at is None else self._paused_at) + self._offset

    def pause(self) -> None:
        if self._paused_at is None:
            self._paused_at = perf_counter()

    def resume(self) -> None:
        if self._paused_at is not None:
            self._offset -= perf_counter() - self._paused_at
            self._paused_at = None
