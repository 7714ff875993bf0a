"""Draws of what one call costs: tokens, milliseconds, dollars. All randomness comes from the Random passed in."""

from math import log
from random import Random

from projector.demo.seed import Org
from projector.demo.vocabulary import CAPABILITY_NAMES, MODELS, TOOLS, Model, Tool
from projector.demo.writes import Event, Json, Usage

_FINISH_REASONS = ("stop", "length", "content_filter")


def chance(random: Random, percent: float) -> bool:
    """True in `percent` of 100 draws."""
    return random.random() * 100 < percent


def around(random: Random, median: float, spread: float = 0.7) -> int:
    """A whole number of at least 1, with a long tail upwards as sizes and durations have it; `median` halves it."""
    return max(1, round(random.lognormvariate(log(median), spread)))


def draw_model(random: Random) -> Model:
    """A model, the common ones more often."""
    return random.choices(MODELS, [model.weight for model in MODELS])[0]


def draw_tools(random: Random, count: int) -> list[Tool]:
    """`count` tools, the common ones more often."""
    return random.choices(TOOLS, [tool.weight for tool in TOOLS], k=count)


def draw_finish_reason(random: Random, *, calls_tools: bool) -> str:
    """Why a generation ended."""
    return "tool_calls" if calls_tools else random.choices(_FINISH_REASONS, [96, 3, 1])[0]


def draw_usage(random: Random, model: Model, calls_before: int) -> Usage:
    """Tokens of a generation: with every call before it in the session, more of the prompt comes from the cache."""
    return Usage(
        input_tokens=around(random, 900),
        output_tokens=around(random, 220, 0.9),
        cache_read_tokens=around(random, 1800) * calls_before,
        cache_creation_tokens=around(random, 1100) if model.writes_cache else 0,
    )


def generation_ms(random: Random, model: Model, usage: Usage) -> int:
    """Milliseconds that a generation takes: the time to its first token, then each token."""
    return around(random, 650) + round(usage.output_tokens * model.token_ms)


def price(model: Model, usage: Usage) -> float:
    """US dollars for the usage; reading the cache costs a tenth of the input price, writing it five quarters."""
    inputs = usage.input_tokens + 0.1 * usage.cache_read_tokens + 1.25 * usage.cache_creation_tokens
    return round((inputs * model.input_price + usage.output_tokens * model.output_price) / 1e6, 8)


def draw_tool_event(random: Random, org: Org, tool: Tool, turn_id: str) -> Event:
    """A `tool.completed` event. Some come from older writers: a `success` but no status, the turn in data alone."""
    status, duration_ms = _tool_outcome(random, tool)
    data: Json = {"tool_call_id": f"call_{random.getrandbits(96):024x}", "tool_name": tool.name}
    if tool.capability is not None:
        data |= {
            "capability_id": org.capability_id(tool.capability),
            "capability_name": CAPABILITY_NAMES[tool.capability],
        }
    if chance(random, 4):
        return Event("tool.completed", data | {"success": status == "success", "turn_id": turn_id})
    data |= {"display_name": tool.display_name, "status": status, "duration_ms": duration_ms}
    if status in {"success", "error"}:
        data["success"] = status == "success"
    return Event("tool.completed", data, {"turn_id": turn_id})


def _tool_outcome(random: Random, tool: Tool) -> tuple[str, int]:
    """Status and milliseconds; a timeout takes as long as its limit, a cancelled call stops somewhere before."""
    if chance(random, tool.timeout_percent):
        return "timeout", random.choice((30_000, 60_000, 120_000)) + random.randint(0, 40)
    duration_ms = around(random, tool.median_ms, 0.8)
    if chance(random, tool.error_percent):
        return "error", duration_ms
    return ("cancelled", max(1, duration_ms // 2)) if chance(random, 1.5) else ("success", duration_ms)


def draw_capability_usage(random: Random, org: Org, turn_id: str) -> Event:
    """A `capability.usage` event of two to four records: what was resolved for the turn, exposed to it, ran in it."""
    records: list[Json] = []
    for tool in random.sample(TOOLS, random.randint(2, 4)):
        reference = tool.capability or "session_file_system"
        kind = random.choice(("resolved", "exposed", "exposed", "invoked", "effect_ran"))
        record: Json = {"capability_id": org.capability_id(reference), "usage_kind": kind}
        if kind in {"invoked", "effect_ran"}:
            record |= {"tool_name": tool.name, "duration_ms": around(random, tool.median_ms)}
        if chance(random, 70):
            record |= {"capability_name": CAPABILITY_NAMES[reference], "usage_count": random.randint(1, 5)}
        records.append(record)
    return Event("capability.usage", {"records": records}, {"turn_id": turn_id})
