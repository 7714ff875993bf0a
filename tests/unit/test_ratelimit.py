"""Rate limits: bursts, the pace afterwards, orgs apart from each other, one limit over all, and bounded memory."""

import math

import pytest

from backfill_api.problems import ApiError, Code, problem_response
from backfill_api.ratelimit import Rate, RateLimiter

PLENTY = Rate(per_minute=1e9, burst=10**9)
ORG, OTHER = 7, 8


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1234.1

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refusal(limiter: RateLimiter, key: int | None) -> ApiError:
    with pytest.raises(ApiError) as refused:
        limiter.check(key)
    return refused.value


def allowed(limiter: RateLimiter, key: int | None, most: int = 10_000) -> int:
    """How many actions are allowed at once."""
    for count in range(most):
        try:
            limiter.check(key)
        except ApiError:
            return count
    return most


def wait_of(error: ApiError) -> int:
    assert error.retry_after is not None
    return error.retry_after


@pytest.mark.parametrize("burst", [1, 2, 20, 333])
def test_a_burst_is_allowed_at_once_and_no_more(clock: Clock, burst: int) -> None:
    assert allowed(RateLimiter(Rate(7, burst), PLENTY, clock=clock), ORG) == burst


def test_afterwards_actions_are_allowed_at_the_rate(clock: Clock) -> None:
    limiter = RateLimiter(Rate(30, 5), PLENTY, clock=clock)
    allowed(limiter, ORG)
    for _ in range(100):
        clock.now += 1.9
        assert allowed(limiter, ORG) == 0
        clock.now += 0.1
        assert allowed(limiter, ORG) == 1


def test_a_rest_gives_a_burst_and_not_more_however_long(clock: Clock) -> None:
    limiter = RateLimiter(Rate(60, 3), Rate(600, 12), clock=clock)
    allowed(limiter, ORG)
    clock.now += 1_000_000
    assert allowed(limiter, ORG) == 3
    clock.now += 1_000_000
    assert allowed(limiter, None) == 12


def test_orgs_do_not_use_up_each_others_actions(clock: Clock) -> None:
    limiter = RateLimiter(Rate(60, 3), PLENTY, clock=clock)
    assert [allowed(limiter, ORG), allowed(limiter, OTHER), allowed(limiter, ORG)] == [3, 3, 0]


def test_the_overall_limit_holds_all_orgs_together(clock: Clock) -> None:
    limiter = RateLimiter(Rate(60, 3), Rate(60, 5), clock=clock)
    assert [allowed(limiter, key) for key in (ORG, OTHER, 9, None)] == [3, 2, 0, 0]


def test_an_action_on_all_orgs_counts_overall_and_for_no_org(clock: Clock) -> None:
    limiter = RateLimiter(Rate(60, 3), Rate(60, 10), clock=clock)
    assert allowed(limiter, None, most=7) == 7
    assert limiter.remembered == 0
    assert allowed(limiter, ORG) == 3


def test_what_an_org_is_refused_counts_for_nobody(clock: Clock) -> None:
    limiter = RateLimiter(Rate(60, 3), Rate(60, 10), clock=clock)
    allowed(limiter, ORG)
    for _ in range(1000):
        refusal(limiter, ORG)
    assert allowed(limiter, None) == 7
    clock.now += 1
    assert allowed(limiter, ORG) == 1


def test_what_the_overall_limit_refuses_does_not_count_for_the_org(clock: Clock) -> None:
    limiter = RateLimiter(Rate(1, 3), Rate(60, 3), clock=clock)
    allowed(limiter, None)
    for _ in range(1000):
        refusal(limiter, ORG)
    clock.now += 3
    assert allowed(limiter, ORG) == 3


@pytest.mark.parametrize(
    ("per_minute", "seconds"), [(600, 1), (60, 1), (59, 2), (30, 2), (7, 9), (1, 60), (0.5, 120), (1 / 60, 3600)]
)
def test_a_refusal_says_after_how_many_whole_seconds_the_next_is_allowed(
    clock: Clock, per_minute: float, seconds: int
) -> None:
    limiter = RateLimiter(Rate(per_minute, 2), PLENTY, clock=clock)
    allowed(limiter, ORG)
    assert wait_of(refusal(limiter, ORG)) == seconds
    clock.now += 60 / per_minute - 0.01
    assert wait_of(refusal(limiter, ORG)) == 1
    clock.now += 0.01
    limiter.check(ORG)


@pytest.mark.parametrize("per_minute", [0.7, 3, 7, 11, 59, 61, 997])
@pytest.mark.parametrize("start", [0.0, 0.1, 1234.1, 9_876_543.21])
def test_who_waits_as_told_is_allowed(clock: Clock, per_minute: float, start: float) -> None:
    clock.now = start
    limiter = RateLimiter(Rate(per_minute, 3), Rate(per_minute * 1.5, 4), clock=clock)
    allowed(limiter, ORG)
    for _ in range(200):
        clock.now += wait_of(refusal(limiter, ORG))
        assert allowed(limiter, ORG) >= 1


def test_rounding_does_not_make_anyone_wait_a_second_more(clock: Clock) -> None:
    for per_minute, seconds in ((20, 3), (10, 6), (6, 10)):
        limiter = RateLimiter(Rate(per_minute, 1), PLENTY, clock=clock)
        limiter.check(ORG)
        waits = []
        for _ in range(seconds):
            waits.append(wait_of(refusal(limiter, ORG)))
            clock.now += 1
        assert waits == list(range(seconds, 0, -1))


def test_where_both_limits_refuse_the_longer_wait_is_told(clock: Clock) -> None:
    limiter = RateLimiter(Rate(6, 2), Rate(1, 2), clock=clock)
    allowed(limiter, ORG)
    assert wait_of(refusal(limiter, ORG)) == 60
    limiter = RateLimiter(Rate(1, 2), Rate(6, 2), clock=clock)
    allowed(limiter, ORG)
    assert wait_of(refusal(limiter, ORG)) == 60


def test_a_refusal_says_which_limit_and_is_the_contracts_429(clock: Clock) -> None:
    limiter = RateLimiter(Rate(7, 2), Rate(30, 3), clock=clock)
    allowed(limiter, ORG)
    of_org = refusal(limiter, ORG)
    assert of_org.code is Code.RATE_LIMITED
    assert of_org.detail == "too many operator actions of this org: at most 7 a minute, 2 at once"
    allowed(limiter, None)
    assert refusal(limiter, OTHER).detail == (
        "too many operator actions of all orgs together: at most 30 a minute, 3 at once"
    )
    answer = problem_response(of_org, "/v1/reports/admin/backfill")
    assert (answer.status, answer.headers["Retry-After"]) == (429, "9")
    assert '"retry_after_seconds":9' in (answer.text or "")
    assert '"rel":"retry-later"' in (answer.text or "")


def test_orgs_are_forgotten_once_their_bucket_is_full_again(clock: Clock) -> None:
    limiter = RateLimiter(Rate(60, 3), PLENTY, clock=clock)
    for key in range(1000):
        limiter.check(key)
    assert limiter.remembered == 1000
    clock.now += 1
    limiter.check(None)
    assert limiter.remembered == 0


def test_orgs_that_are_not_full_again_are_not_forgotten(clock: Clock) -> None:
    limiter = RateLimiter(Rate(60, 3), PLENTY, clock=clock)
    allowed(limiter, ORG)
    clock.now += 2.9
    limiter.check(None)
    assert limiter.remembered == 1
    assert allowed(limiter, ORG) == 2


def test_memory_is_bounded_by_the_overall_limit_through_any_number_of_orgs(clock: Clock) -> None:
    limiter = RateLimiter(Rate(60, 3), Rate(600, 20), clock=clock)
    most = 0
    for key in range(20_000):
        clock.now += 0.01
        allowed(limiter, key, most=1)
        most = max(most, limiter.remembered)
    assert 10 <= most <= 20 + 3 * 10


def test_a_busy_org_does_not_keep_others_in_memory_for_longer_than_a_burst_takes(clock: Clock) -> None:
    limiter = RateLimiter(Rate(60, 3), PLENTY, clock=clock)
    allowed(limiter, ORG)
    for key in range(100, 200):
        limiter.check(key)
    for _ in range(30):
        clock.now += 0.1
        allowed(limiter, ORG)
    assert limiter.remembered == 1


@pytest.mark.parametrize(("per_minute", "burst"), [(0, 1), (-1, 1), (math.inf, 1), (math.nan, 1), (1, 0), (1, -1)])
def test_rates_that_make_no_sense_are_refused(per_minute: float, burst: int) -> None:
    with pytest.raises(ValueError, match="per_minute"):
        Rate(per_minute, burst)
