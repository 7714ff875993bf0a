"""Random histories: sources come, change and go while workers project them; the facts end in what the sources give."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projector.batch import BatchRules
from projector.database import Timeouts
from projector.registry import Registry
from projector.settings import OnSourceGone
from tests.histories import Phase, Step
from tests.integration.conftest import empty
from tests.stage import Stage

MOST_WORKERS = 3

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
SCALARS = (
    st.none() | st.booleans() | st.integers(-2, 2**64) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
    | st.sampled_from(["7", "007", "9223372036854775807", "success", "timeout", "web", "exposed", "invoked"])
)  # fmt: skip
ANY = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)
TURN = st.sampled_from(["one", "two"])
NUMBER = st.integers(0, 1000) | ANY
CAPABILITY = st.sampled_from(["web", "files"]) | ANY
KIND = st.sampled_from(["configured", "exposed", "invoked"]) | ANY
RECORD: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {"capability_id": CAPABILITY, "usage_kind": KIND}, optional={"usage_count": NUMBER, "tool_name": ANY}
)
TOKENS: dict[Any, st.SearchStrategy[Any]] = dict.fromkeys(["input_tokens", "output_tokens"], NUMBER)
DATA: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {"turn_id": TURN},
    optional={
        "status": ANY, "success": st.booleans() | ANY, "duration_ms": NUMBER, "capability_id": CAPABILITY,
        "capability_name": ANY, "guardrail_capability_id": CAPABILITY, "records": st.lists(RECORD, max_size=3) | ANY,
        "usage": st.fixed_dictionaries({}, optional=TOKENS) | ANY,
    },
)  # fmt: skip
CAPABILITIES = st.lists(st.fixed_dictionaries({"ref": CAPABILITY}) | CAPABILITY, max_size=3) | ANY

DOCUMENTS = {
    "add_session": CAPABILITIES, "change_session": CAPABILITIES, "call_tool": DATA, "end_turn": DATA,
    "use_capability": DATA, "add_any_event": ANY,
}  # fmt: skip
FREQUENCIES = {
    "add_session": 1, "change_session": 3, "call_tool": 5, "end_turn": 4, "use_capability": 2, "add_any_event": 2,
    "add_generation": 2, "report_late_usage": 2, "add_posting": 2, "rename": 1, "configure_agent": 1, "delete": 1,
    "delete_session": 1, "enqueue_for_the_other_org": 1,
}  # fmt: skip


def step(kind: str) -> st.SearchStrategy[Step]:
    return st.builds(
        Step, st.just(kind), st.sampled_from([1, 2]), st.integers(0, 40), st.booleans(),
        DOCUMENTS.get(kind, st.none()), st.sampled_from([(0,), (1,), (0, 1, 2)]), st.booleans(),
    )  # fmt: skip


STEPS = st.sampled_from([kind for kind, times in FREQUENCIES.items() for _ in range(times)]).flatmap(step)
PHASES = st.builds(
    Phase, st.lists(STEPS, min_size=5, max_size=40), st.lists(st.integers(1, 8), min_size=1, max_size=MOST_WORKERS)
)
HISTORIES = st.lists(PHASES, min_size=1, max_size=3)


# Removal is played with one worker: what is removed beside another worker is test_promises_order's.
SETTINGS = [(OnSourceGone.KEEP, MOST_WORKERS), (OnSourceGone.REMOVE, 1)]


@pytest.fixture(scope="module", params=SETTINGS, ids=["keep", "remove"])
def play(request: pytest.FixtureRequest, _reused: str, registry: Registry) -> Iterator[Any]:
    """Plays a history on an emptied database."""
    on_source_gone, workers = request.param
    rules = BatchRules(registry, Timeouts(statement=30), max_attempts=10, on_source_gone=on_source_gone)
    stage = Stage(_reused, rules)
    with asyncio.Runner() as runner:

        async def play_from_empty(phases: list[Phase]) -> None:
            await empty(_reused)
            await stage.play(phases)

        runner.run(stage.open(workers))
        yield lambda phases: runner.run(play_from_empty(phases))
        runner.run(stage.close())


@settings(max_examples=40, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
@given(phases=HISTORIES)
def test_the_facts_end_in_what_the_sources_give_whatever_happens_in_whatever_order(
    play: Any, phases: list[Phase]
) -> None:
    play(phases)
