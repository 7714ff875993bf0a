"""One agent session as the application writes it: a transaction for each step, none longer than a few rows."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from random import Random
from typing import Final
from uuid import UUID

from projector.demo.drawing import (
    around,
    chance,
    draw_capability_usage,
    draw_finish_reason,
    draw_model,
    draw_tool_event,
    draw_tools,
    draw_usage,
    generation_ms,
    price,
)
from projector.demo.seed import Connection, Org, Platform, random_uuid
from projector.demo.vocabulary import (
    BACKGROUND_MODEL,
    BLUEPRINTS,
    CAPABILITIES,
    GUARDRAILS,
    TURN_CANCELLED_PERCENT,
    TURN_FAILED_PERCENT,
    USER_LINES,
    Model,
    Tool,
)
from projector.demo.writes import (
    Event,
    Generation,
    Json,
    Owner,
    Posting,
    TrafficCounts,
    UnitOfWork,
    Usage,
    unit_of_work,
)

LATE_USAGE_PERCENT: Final = 3.0
DEBIT_PERCENT: Final = 95.0
CREDIT_PERCENT: Final = 2.0
GUARDRAIL_PERCENT: Final = 7.0
CAPABILITY_USAGE_PERCENT: Final = 50.0
BACKGROUND_PERCENT: Final = 40.0

_FINAL_STATUSES: Final = ("completed", "idle", "paused", "waiting_for_tool_results", "failed", "cancelled")
_FINAL_WEIGHTS: Final = (45, 38, 6, 3, 5, 3)
_ENDED: Final = frozenset({"completed", "failed", "cancelled"})


@dataclass(slots=True)
class _Turn:
    """A turn under way; `iterations` holds the tools that each of its generations calls."""

    uuid: UUID
    iterations: list[list[Tool]]
    duration_ms: int = 0
    usage: Usage = field(default_factory=Usage)

    @property
    def text_id(self) -> str:
        """The id as events write it."""
        return f"turn_{self.uuid.hex}"


@dataclass(slots=True)
class _Session:
    """A session under way: what its next transaction needs to know of those before."""

    random: Random
    owner: Owner
    id: UUID
    model: Model
    sequence: int = 1
    calls: int = 0
    late: list[tuple[UUID, Usage]] = field(default_factory=list)

    async def write(self, unit: UnitOfWork, events: list[Event]) -> list[UUID]:
        ids = await unit.events(self.owner.org.org_id, self.id, self.sequence, events)
        self.sequence += len(events)
        return ids


async def session_steps(
    connection: Connection, platform: Platform, random: Random, counts: TrafficCounts
) -> AsyncGenerator[int, None]:
    """Write one session step by step, each a transaction; yields how many outbox rows each has committed.

    A caller that stops asking leaves a session that is still active, as a crashed application would.
    """
    session, rows = await _create(connection, platform, random, counts)
    yield rows
    for _ in range(random.choices((1, 2, 3, 4, 5, 6, 8), (10, 17, 20, 18, 14, 12, 9))[0]):
        turn = _plan_turn(random)
        yield await _open_turn(connection, session, turn, counts)
        for tools in turn.iterations:
            yield await _iterate(connection, session, turn, tools, counts)
        yield await _close_turn(connection, session, turn, counts)
    yield await _finish(connection, session, counts)
    if chance(random, BACKGROUND_PERCENT):
        yield await _background(connection, session.owner.org, random, counts)


async def _create(
    connection: Connection, platform: Platform, random: Random, counts: TrafficCounts
) -> tuple[_Session, int]:
    # A few tenants make most of the traffic, as on any real platform.
    org = platform.orgs[int(len(platform.orgs) * random.random() ** 2)]
    member = random.choice(org.members)
    owner = Owner(
        org=org,
        principal_id=member.principal_id,
        user_id=None if chance(random, 10) else member.user_id,
        agent_id=None if chance(random, 5) else random.choice(org.agents),
        harness_id=random.choice(org.harnesses),
        app_id=random_uuid(random) if chance(random, 20) else None,
        blueprint_id=random.choice(BLUEPRINTS) if chance(random, 25) else None,
    )
    async with unit_of_work(connection, counts) as unit:
        session_id = await unit.session(owner, _capabilities(random, org))
    return _Session(random, owner, session_id, draw_model(random)), unit.written.outbox_rows


def _capabilities(random: Random, org: Org) -> list[object]:
    """What a session is configured with itself: objects, or in older ones plain ids."""
    chosen = random.sample(CAPABILITIES, random.choices((0, 1, 2, 3), (50, 25, 15, 10))[0])
    ids = [org.capability_id(capability.reference) for capability in chosen]
    return [i if chance(random, 25) else {"ref": i, "config": {}} for i in ids]


def _plan_turn(random: Random) -> _Turn:
    """Up to six tool calls, spread over all generations but the last, which answers the user."""
    tools = draw_tools(random, random.randint(0, 6))
    rounds = random.randint(1, min(3, len(tools))) if tools else 0
    return _Turn(random_uuid(random), [tools[n::rounds] for n in range(rounds)] + [[]])


async def _open_turn(connection: Connection, session: _Session, turn: _Turn, counts: TrafficCounts) -> int:
    line: Json = {"turn_id": turn.text_id, "text": session.random.choice(USER_LINES)}
    async with unit_of_work(connection, counts) as unit:
        await session.write(unit, [Event("message.user", line), Event("turn.started", {"turn_id": turn.text_id})])
        await unit.session_status(session.id, "active")
    return unit.written.outbox_rows


async def _iterate(
    connection: Connection, session: _Session, turn: _Turn, tools: list[Tool], counts: TrafficCounts
) -> int:
    """One generation, its debit, and the tool calls that it asked for."""
    random, owner = session.random, session.owner
    model = draw_model(random) if chance(random, 8) else session.model
    usage = draw_usage(random, model, session.calls)
    duration_ms = generation_ms(random, model, usage)
    calls = [draw_tool_event(random, owner.org, tool, turn.text_id) for tool in tools]
    generated = Event("llm.generation", {"turn_id": turn.text_id, "model": model.name})
    reason = draw_finish_reason(random, calls_tools=bool(tools))
    late = chance(random, LATE_USAGE_PERCENT)
    made = Generation(model.name, model.provider, reason, Usage() if late else usage, duration_ms, turn.uuid)
    async with unit_of_work(connection, counts) as unit:
        event_id = (await session.write(unit, [generated, *calls]))[0]
        generation_id = await unit.generation(owner.org.org_id, session.id, event_id, made)
        if chance(random, DEBIT_PERCENT):
            await unit.posting(owner, session.id, _debit(random, owner.org, price(model, usage)))
    if late:
        session.late.append((generation_id, usage))
    session.calls += 1
    turn.usage += made.usage
    turn.duration_ms += duration_ms + max((_milliseconds(call) for call in calls), default=0)
    return unit.written.outbox_rows


def _milliseconds(call: Event) -> int:
    duration_ms = call.data.get("duration_ms")
    return duration_ms if isinstance(duration_ms, int) else 0


def _debit(random: Random, org: Org, amount: float) -> Posting:
    budget = None if chance(random, 15) else random.choice(org.budgets)
    return Posting(amount, "llm_tokens", "llm_generation", budget.id if budget else None)


async def _close_turn(connection: Connection, session: _Session, turn: _Turn, counts: TrafficCounts) -> int:
    """The turn's last events, its usage added to the session, and what is posted or reported only now."""
    random, owner = session.random, session.owner
    usage = turn.usage
    async with unit_of_work(connection, counts) as unit:
        await session.write(unit, _closing_events(random, owner.org, turn))
        for generation_id, reported in session.late:
            await unit.late_usage(generation_id, reported)
            usage += reported
        await unit.session_status(session.id, "idle")
        await unit.session_usage(session.id, usage)
        if chance(random, CREDIT_PERCENT):
            refund = Posting(-round(random.uniform(0.01, 5.0), 2), "manual", "refund", owner.org.budgets[0].id)
            await unit.posting(owner, session.id, refund)
    session.late.clear()
    return unit.written.outbox_rows


def _closing_events(random: Random, org: Org, turn: _Turn) -> list[Event]:
    events: list[Event] = []
    if chance(random, CAPABILITY_USAGE_PERCENT):
        events.append(draw_capability_usage(random, org, turn.text_id))
    if chance(random, GUARDRAIL_PERCENT):
        guardrail: Json = {"guardrail_capability_id": random.choice(GUARDRAILS), "turn_id": turn.text_id}
        events.append(Event("output.message.replaced", guardrail, {"turn_id": turn.text_id}))
    data: Json = {"turn_id": turn.text_id, "duration_ms": turn.duration_ms + around(random, 120)}
    if chance(random, TURN_FAILED_PERCENT):
        return [*events, Event("turn.failed", data | {"error": "provider_unavailable"})]
    if chance(random, TURN_CANCELLED_PERCENT):
        return [*events, Event("turn.cancelled", data)]
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")
    usage: Json = dict(zip(names, turn.usage.tokens(), strict=True))
    data |= {"iterations": len(turn.iterations), "usage": usage}
    answered = Event("output.message.completed", {"turn_id": turn.text_id, "text": "Done."})
    ended = Event("turn.completed", data, {"turn_id": turn.text_id})
    return [*events, answered, ended, Event("turn.sealed", {"turn_id": turn.text_id})]


async def _finish(connection: Connection, session: _Session, counts: TrafficCounts) -> int:
    status = session.random.choices(_FINAL_STATUSES, _FINAL_WEIGHTS)[0]
    async with unit_of_work(connection, counts) as unit:
        await unit.session_status(session.id, status, ends=status in _ENDED)
    return unit.written.outbox_rows


async def _background(connection: Connection, org: Org, random: Random, counts: TrafficCounts) -> int:
    """Inference of the platform itself, a title or a summary: it belongs to no session."""
    usage = Usage(around(random, 700), around(random, 25))
    duration_ms = generation_ms(random, BACKGROUND_MODEL, usage)
    made = Generation(BACKGROUND_MODEL.name, BACKGROUND_MODEL.provider, "stop", usage, duration_ms)
    async with unit_of_work(connection, counts) as unit:
        await unit.generation(org.org_id, None, None, made)
        await unit.posting(Owner(org), None, _debit(random, org, price(BACKGROUND_MODEL, usage)))
    return unit.written.outbox_rows
