"""Call after call of the backfill API: what to wait out, for how long, and what all of them did."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from projector.backfill_client import CallError
from schemas.reports import ReportingBackfillResult

TRIES = 12
"""Failures in a row that are waited out: two and a half minutes, more than one call of another backfill takes."""

# Answers that another try may change: work of another backfill, limits, a service or a proxy that is not up just now.
_MAY_PASS = frozenset({409, 429, 502, 503, 504})

# How long to wait before the next try, in seconds, where the service does not ask for more: doubled with each failure.
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 15.0
_WAIT_TO_GO_ON = 0.1

# Whoever is asked to wait for longer than this, in seconds, had better be told.
_LONGEST_ASKED = 600


@dataclass(slots=True)
class Tally:
    """What the calls of one command did.

    Attributes:
        calls: those that gave a result.
        uncertain: those that gave none and may have enqueued rows, which are not counted here.
        others: None as long as no result named any.
    """

    enqueued: int = 0
    events: int = 0
    llm_generations: int = 0
    sessions: int = 0
    usage_ledger: int = 0
    others: int | None = None
    calls: int = 0
    uncertain: int = 0

    def add(self, result: ReportingBackfillResult) -> None:
        """Counts one result."""
        self.calls += 1
        self.enqueued += result.enqueued
        self.events += result.events
        self.llm_generations += result.llm_generations
        self.sessions += result.sessions
        self.usage_ledger += result.usage_ledger
        if result.others is not None:
            self.others = (self.others or 0) + result.others

    def by_type(self) -> dict[str, int]:
        """Rows by source type, under the contract's names."""
        counts = {
            "events": self.events, "llm_generations": self.llm_generations, "sessions": self.sessions,
            "usage_ledger": self.usage_ledger,
        }  # fmt: skip
        return counts if self.others is None else counts | {"others": self.others}


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls until there is a result, or until nothing is left.

    Attributes:
        call: one call; raises CallError.
        tally: where it is counted.
        sleep: waits so many seconds.
        on_result: told of each result, which is counted by then.
        on_wait: told of each wait: why, and the seconds.
        goes_on: whether a service that ran out of time goes on from there when called again; a dry run leaves no trace
            to go on from.
    """

    call: Callable[[], Awaitable[ReportingBackfillResult]]
    tally: Tally
    sleep: Callable[[float], Awaitable[None]]
    on_result: Callable[[ReportingBackfillResult], None]
    on_wait: Callable[[CallError, float], None]
    goes_on: bool = True

    async def once(self) -> None:
        """Gets one result; a service that only ran out of time is called again, since it goes on from there.

        Raises:
            CallError: any other failure.
        """
        await self._result(tries=0)

    async def until_done(self) -> None:
        """Calls until a result enqueues nothing; waits out what may pass.

        Raises:
            CallError: a failure that does not pass, or one too many in a row.
        """
        while await self._result(TRIES):
            pass

    async def _result(self, tries: int) -> int:
        """The rows of the next result, after up to so many failures in a row."""
        failures = 0
        while True:
            try:
                result = await self.call()
            except asyncio.CancelledError:
                self.tally.uncertain += 1
                raise
            except CallError as error:
                self.tally.uncertain += error.uncertain
                failures = 0 if error.incomplete else failures + 1
                if failures > tries or not self._may_pass(error):
                    raise
                seconds = _wait(error, failures)
                self.on_wait(error, seconds)
                await self.sleep(seconds)
            else:
                self.tally.add(result)
                self.on_result(result)
                return result.enqueued

    def _may_pass(self, error: CallError) -> bool:
        if error.incomplete:
            return self.goes_on
        if error.status is None:
            return self.tally.calls > 0  # before the first result it rather is a wrong URL
        return error.status in _MAY_PASS and (error.retry_after or 0) <= _LONGEST_ASKED


def _wait(error: CallError, failures: int) -> float:
    """Seconds until the next try: what the service asks for, or more if that has not helped."""
    asked = error.retry_after or 0
    if error.incomplete:
        return max(asked, _WAIT_TO_GO_ON)
    return max(asked, min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** (failures - 1)))
