"""Rate limits of operator actions: token buckets, one for each org and one overall (contract: http.md, errors)."""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from backfill_api.problems import ApiError, Code

# Times are sums of floats: a bucket that is short of a whole action by no more than rounding has it.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something may be done.

    Attributes:
        per_minute: how many times a minute in the long run; above 0.
        burst: how many times at once after a rest; 1 or more.

    Raises:
        ValueError: a number is too small.
    """

    per_minute: float
    burst: int

    def __post_init__(self) -> None:
        if not 0 < self.per_minute < math.inf or self.burst < 1:
            raise ValueError("per_minute must be above 0 and finite, burst 1 or more")

    def __str__(self) -> str:
        return f"at most {self.per_minute:g} a minute, {self.burst} at once"


@dataclass(slots=True)
class _Bucket:
    """How many actions are left, as of a time."""

    left: float
    at: float

    def fill(self, rate: Rate, now: float) -> None:
        self.left = min(rate.burst, self.left + (now - self.at) * rate.per_minute / 60)
        self.at = now

    def wait(self, rate: Rate) -> float:
        """Seconds until one more action is allowed; 0 for now."""
        missing = 1 - self.left
        return 0.0 if missing <= _ROUNDING else missing * 60 / rate.per_minute


class RateLimiter:
    """Limits what is done for each org, and for all together, in this process.

    An action that is refused counts for neither. Memory is bounded: an org's bucket is dropped once it is full again,
    and a new one is made only for an action that is allowed, which the overall limit bounds.

    Args:
        org: of each org.
        overall: of all together.
        clock: seconds that never go back, such as `time.monotonic`.
    """

    def __init__(self, org: Rate, overall: Rate, *, clock: Callable[[], float]) -> None:
        self._org = org
        self._overall = overall
        self._clock = clock
        self._all = _Bucket(overall.burst, clock())
        # Least recently used first.
        self._buckets: OrderedDict[int, _Bucket] = OrderedDict()

    @property
    def remembered(self) -> int:
        """How many orgs have a bucket."""
        return len(self._buckets)

    def check(self, key: int | None) -> None:
        """Counts an action (contract: http.md, errors, 429).

        Args:
            key: the org it is for; None for an action on all orgs, which only the overall limit holds back.

        Raises:
            ApiError: 429, too many; `retry_after` says when the next one is allowed.
        """
        now = self._clock()
        self._forget(now)
        self._all.fill(self._overall, now)
        bucket = None if key is None else self._buckets.get(key) or _Bucket(self._org.burst, now)
        of_org = 0.0
        if bucket is not None:
            bucket.fill(self._org, now)
            of_org = bucket.wait(self._org)
        of_all = self._all.wait(self._overall)
        if of_org or of_all:
            raise self._refusal(of_org, of_all)
        self._all.left -= 1
        if key is not None and bucket is not None:
            bucket.left -= 1
            self._buckets[key] = bucket
            self._buckets.move_to_end(key)

    def _refusal(self, of_org: float, of_all: float) -> ApiError:
        # Both are waited for at once. A short wait is still a whole second: 0 would invite a busy loop.
        seconds = max(1, math.ceil(max(of_org, of_all) - _ROUNDING))
        whose, rate = ("of this org", self._org) if of_org >= of_all else ("of all orgs together", self._overall)
        return ApiError(Code.RATE_LIMITED, f"too many operator actions {whose}: {rate}", retry_after=seconds)

    def _forget(self, now: float) -> None:
        """Drops full buckets, longest unused first; none stays for longer than a whole burst takes to come back."""
        while self._buckets:
            key, bucket = next(iter(self._buckets.items()))
            bucket.fill(self._org, now)
            if bucket.left < self._org.burst:
                return
            del self._buckets[key]
