"""Call after call of the backfill API: when to go on, what to wait out and for how long, and what is counted."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from projector.backfill_calls import TRIES, Calls, Tally
from projector.backfill_client import CallError
from schemas.reports import ReportingBackfillResult

FIVE = ReportingBackfillResult(enqueued=5, events=2, llm_generations=1, sessions=1, usage_ledger=1)
NOTHING = ReportingBackfillResult(enqueued=0, events=0, llm_generations=0, sessions=0, usage_ledger=0)


def limited(seconds: int | None = None) -> CallError:
    return CallError("limited", status=429, code="rate_limited", retry_after=seconds)


def incomplete(seconds: int | None = 1) -> CallError:
    return CallError("incomplete", status=503, code="incomplete", retry_after=seconds)


def no_answer(*, uncertain: bool = False) -> CallError:
    return CallError("no answer", uncertain=uncertain)


@dataclass
class Script:
    """Gives one of these after the other; after the last, that again. Nobody really sleeps."""

    outcomes: list[ReportingBackfillResult | CallError]
    calls: int = 0
    waits: list[float] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    results: list[ReportingBackfillResult] = field(default_factory=list)
    told: list[tuple[str, float]] = field(default_factory=list)

    async def call(self) -> ReportingBackfillResult:
        outcome = self.outcomes[min(self.calls, len(self.outcomes) - 1)]
        self.calls += 1
        if isinstance(outcome, CallError):
            raise outcome
        return outcome

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def made(self) -> Calls:
        return Calls(
            self.call, self.tally, self.sleep, self.results.append,
            lambda error, seconds: self.told.append((str(error), seconds)),
        )  # fmt: skip


async def until_done(*outcomes: ReportingBackfillResult | CallError) -> Script:
    script = Script(list(outcomes))
    await script.made().until_done()
    return script


async def refused(run: Callable[[Calls], object], *outcomes: ReportingBackfillResult | CallError) -> Script:
    """Expects the last outcome to be raised."""
    script = Script(list(outcomes))
    with pytest.raises(CallError) as failed:
        await run(script.made())  # type: ignore[misc]
    assert failed.value is outcomes[-1]
    return script


async def test_it_calls_until_nothing_is_enqueued_and_adds_up() -> None:
    script = await until_done(FIVE, FIVE.model_copy(update={"others": 3}), FIVE, NOTHING)
    assert script.calls == script.tally.calls == 4
    assert script.tally == Tally(15, 6, 3, 3, 3, 3, calls=4)
    assert len(script.results) == 4
    assert script.waits == []


async def test_others_are_named_only_where_a_result_names_them() -> None:
    assert set((await until_done(NOTHING)).tally.by_type()) == {
        "events", "llm_generations", "sessions", "usage_ledger",
    }  # fmt: skip
    named = await until_done(NOTHING.model_copy(update={"others": 0}))
    assert named.tally.by_type()["others"] == 0


async def test_once_is_one_result_and_waits_for_nobody() -> None:
    script = Script([FIVE])
    await script.made().once()
    assert (script.calls, script.tally.enqueued) == (1, 5)
    for status in (409, 429, 503):
        assert (await refused(Calls.once, CallError("no", status=status, retry_after=1))).waits == []


@pytest.mark.parametrize("status", [409, 429, 502, 503, 504])
async def test_what_may_pass_is_waited_out_as_the_service_says(status: int) -> None:
    error = CallError("later", status=status, retry_after=7)
    script = await until_done(error, FIVE, error, NOTHING)
    assert script.waits == [7, 7]
    assert script.told == [("later", 7), ("later", 7)]
    assert script.tally.enqueued == 5


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 405, 413, 422, 500])
async def test_what_does_not_pass_ends_it_at_once(status: int) -> None:
    error = CallError("never", status=status, retry_after=1)
    script = await refused(Calls.until_done, FIVE, error)
    assert (script.calls, script.waits, script.tally.enqueued) == (2, [], 5)


async def test_waits_grow_where_asking_again_did_not_help() -> None:
    script = await until_done(*[limited()] * 6, NOTHING)
    assert script.waits == [1, 2, 4, 8, 15, 15]
    script = await until_done(*[limited(3)] * 4, NOTHING)
    assert script.waits == [3, 3, 4, 8]


async def test_failures_in_a_row_are_bounded_and_a_result_starts_anew() -> None:
    script = await refused(Calls.until_done, limited(1))
    assert script.calls == TRIES + 1
    assert 100 < sum(script.waits) < 300
    almost = [limited(1)] * TRIES
    script = await until_done(*almost, FIVE, *almost, NOTHING)
    assert script.tally.enqueued == 5
    assert script.waits[:TRIES] == script.waits[TRIES:]


async def test_a_service_that_asks_for_very_long_is_not_waited_for() -> None:
    assert (await until_done(limited(600), NOTHING)).waits == [600]
    assert (await refused(Calls.until_done, limited(601))).waits == []


async def test_an_incomplete_answer_is_no_failure_however_often() -> None:
    many = [incomplete()] * (5 * TRIES)
    script = await until_done(*many, FIVE, *many, NOTHING)
    assert set(script.waits) == {1}
    assert script.tally == Tally(5, 2, 1, 1, 1, calls=2)
    once = Script([*many, FIVE])
    await once.made().once()
    assert once.tally.enqueued == 5


async def test_an_incomplete_answer_that_names_no_seconds_is_no_busy_loop() -> None:
    assert (await until_done(incomplete(None), incomplete(0), NOTHING)).waits == [0.1, 0.1]


async def test_an_incomplete_answer_starts_the_count_of_failures_anew() -> None:
    almost = [limited(1)] * TRIES
    assert (await until_done(*almost, incomplete(), *almost, NOTHING)).calls == 2 * TRIES + 2


async def test_an_incomplete_dry_run_is_not_repeated_in_vain() -> None:
    script = Script([incomplete()])
    with pytest.raises(CallError):
        await replace(script.made(), goes_on=False).once()
    assert script.calls == 1


async def test_no_answer_is_waited_out_only_where_the_service_has_answered_before() -> None:
    assert (await refused(Calls.until_done, no_answer())).calls == 1
    script = await until_done(FIVE, no_answer(), no_answer(), NOTHING)
    assert (script.waits, script.tally.enqueued) == ([1, 2], 5)
    assert (await refused(Calls.until_done, FIVE, no_answer())).calls == TRIES + 2


async def test_calls_whose_rows_nobody_knows_are_counted() -> None:
    script = await until_done(FIVE, no_answer(uncertain=True), no_answer(), NOTHING)
    assert (script.tally.calls, script.tally.uncertain) == (2, 1)


async def test_a_stop_in_the_midst_of_a_call_leaves_open_what_it_enqueued_and_one_between_calls_does_not() -> None:
    forever = asyncio.Event()
    script = Script([limited(1)])

    async def call() -> ReportingBackfillResult:
        await forever.wait()
        return NOTHING

    async def sleep(_: float) -> None:
        await forever.wait()

    for calls, uncertain in (
        (Calls(call, script.tally, script.sleep, script.results.append, lambda *_: None), 1),
        (Calls(script.call, script.tally, sleep, script.results.append, lambda *_: None), 0),
    ):
        script.tally.uncertain = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await calls.until_done()
        assert script.tally.uncertain == uncertain
