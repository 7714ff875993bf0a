"""The facts that a full projection of given canonical rows must end in, derived in plain Python.

Derived from the written contract alone (facts.md, sources.md), never from the SQL of the projections: where the two
differ, one of them misreads the contract. Nothing here asks PostgreSQL to compute, so that a wrong idea of how its
operators behave cannot hide on both sides.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg

from tests.oracle_values import bounded, capability, counts, member, milliseconds, number, parse_json, text, total

Row = dict[str, Any]
Sources = dict[str, list[Row]]  # by table; JSON columns are parsed, and their numbers are `JsonNumber`
Facts = dict[str, dict[tuple[int, str], dict[str, object]]]

USAGE_KINDS = {"configured", "resolved", "exposed", "invoked", "effect_ran"}
TURN_STATUS = {"turn.completed": "completed", "turn.failed": "failed", "turn.cancelled": "cancelled"}
TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")

_COMMON = """org_id source_key session_id user_id principal_id agent_id agent_name_snapshot harness_id
    harness_name_snapshot app_id blueprint_id created_at time_bucket_day """
_TOKENS = " input_tokens output_tokens cache_read_tokens cache_creation_tokens total_tokens "
FACT_COLUMNS: dict[str, list[str]] = {
    table: (_COMMON + own).split()
    for table, own in {
        "fact_llm_generation": "turn_id model provider finish_reason duration_ms time_to_first_token_ms success_count "
        "error_count" + _TOKENS,
        "fact_tool_call": "turn_id tool_call_id tool_name tool_display_name_snapshot tool_status capability_id "
        "capability_name_snapshot call_count success_count error_count timeout_count cancelled_count duration_ms",
        "fact_turn": "turn_id turn_status turn_count duration_ms iterations tool_call_count success_count error_count"
        + _TOKENS,
        "fact_session": "session_status started_at finished_at last_active_at session_count duration_ms turn_count "
        "tool_call_count" + _TOKENS,
        "fact_budget_posting": "budget_id budget_subject_type budget_subject_id currency meter_source ref_type amount "
        "debit_count credit_count",
        "fact_capability_usage": "turn_id capability_id capability_name_snapshot capability_usage_kind tool_name "
        "usage_count duration_ms",
    }.items()
}
SOURCE_TABLES = (
    *("agents", "harnesses", "agent_capabilities", "harness_capabilities", "mcp_servers", "skills"),
    *("declarative_capabilities", "sessions", "events", "llm_generations", "budgets", "usage_ledger"),
)
_JSON_COLUMNS = {"sessions": ["capabilities"], "events": ["data", "context"]}


async def read_sources(connection: asyncpg.Connection) -> Sources:
    """All canonical rows; nothing else may be writing meanwhile, or the tables are read at different moments."""
    sources: Sources = {}
    for table in SOURCE_TABLES:
        # JSON leaves the database as text: its own printing is what decides how a number reads.
        documents = _JSON_COLUMNS.get(table, [])
        columns = ", ".join(["*", *(f"{column}::text AS {column}_text" for column in documents)])
        sources[table] = [
            {**record, **{column: parse_json(record[f"{column}_text"]) for column in documents}}
            for record in await connection.fetch(f"SELECT {columns} FROM {table}")
        ]
    return sources


async def read_facts(connection: asyncpg.Connection) -> Facts:
    """The facts as they stand in the six tables, in the shape of `expected_facts`."""
    facts: Facts = {}
    for table, columns in FACT_COLUMNS.items():
        records = await connection.fetch(f"SELECT {', '.join(columns)} FROM {table}")
        facts[table] = {(record["org_id"], record["source_key"]): dict(record) for record in records}
    return facts


def expected_facts(sources: Sources) -> Facts:
    """What every source row, projected, must give: per table and (org_id, source_key) all columns but projected_at."""
    return _Derivation(sources).run()


def differences(expected: Facts, actual: Facts) -> list[str]:
    """One readable line for each fact that is missing or unexpected and each column that differs."""
    lines: list[str] = []
    for table in sorted(expected.keys() | actual.keys()):
        wanted, found = expected.get(table, {}), actual.get(table, {})
        lines += [f"{table} {key}: missing" for key in sorted(wanted.keys() - found.keys())]
        lines += [f"{table} {key}: unexpected" for key in sorted(found.keys() - wanted.keys())]
        for key in sorted(wanted.keys() & found.keys()):
            for column in sorted(wanted[key].keys() | found[key].keys()):
                want, got = wanted[key].get(column), found[key].get(column)
                both_nan = want != want and got != got  # noqa: PLR0124 - only NaN differs from itself
                if want != got and not both_nan:
                    lines.append(f"{table} {key}: {column} expected {want!r}, got {got!r}")
    return lines


def of_org(org_id: int, rows: dict[Any, Row], row_id: Any) -> Row:
    """The row of that id, or nothing where it is another tenant's."""
    row = rows.get(row_id, {})
    return row if row.get("org_id") == org_id else {}


def turn_id_of(event: Row, *places: str) -> str | None:
    found = (text(event[place], "turn_id") for place in places)
    return next((turn_id for turn_id in found if turn_id is not None), None)


class _Derivation:
    """One run over the sources: the look-ups by id, and the facts gathered so far."""

    def __init__(self, sources: Sources) -> None:
        self.facts: Facts = {table: {} for table in FACT_COLUMNS}
        self.sources = sources
        self.sessions = {row["id"]: row for row in sources["sessions"]}
        self.agents = {row["id"]: row for row in sources["agents"]}
        self.harnesses = {row["id"]: row for row in sources["harnesses"]}
        self.budgets = {row["id"]: row for row in sources["budgets"]}
        self.capabilities: dict[tuple[str, Any], list[str]] = defaultdict(list)
        for scope in ("agent", "harness"):
            for row in sources[f"{scope}_capabilities"]:
                self.capabilities[scope, row[f"{scope}_id"]].append(row["capability_id"])
        self.capability_names: dict[tuple[int, str], str] = {}
        for prefix, rows in (("mcp", sources["mcp_servers"]), ("skill", sources["skills"])):
            self.capability_names |= {(row["org_id"], f"{prefix}:{row['id']}"): row["name"] for row in rows}
        for row in sources["declarative_capabilities"]:
            name = row["name"] if row["display_name"] is None else row["display_name"]
            self.capability_names[row["org_id"], f"declarative:{row['name']}"] = name
        tools = [event for event in sources["events"] if event["event_type"] == "tool.completed"]
        self.tool_calls = Counter((event["session_id"], turn_id_of(event, "context", "data")) for event in tools)

    def run(self) -> Facts:
        derive_event: dict[str, Callable[[Row, Row], None]] = {
            "tool.completed": self.tool_completed,
            "capability.usage": self.capability_usage,
            "output.message.replaced": self.message_replaced,
            **dict.fromkeys(TURN_STATUS, self.turn),
        }
        for event in self.sources["events"]:
            session = self.sessions.get(event["session_id"])
            derive = derive_event.get(event["event_type"])
            if session and derive:
                derive(event, self.of_session(session["org_id"], session["id"], event["ts"]))
        for generation in self.sources["llm_generations"]:
            self.llm_generation(generation)
        for session in self.sources["sessions"]:
            self.session(session)
        for posting in self.sources["usage_ledger"]:
            self.budget_posting(posting)
        return self.facts

    def add(self, table: str, source_key: str, common: Row, own: Row) -> None:
        fact = {"source_key": source_key, **common, **own}
        assert sorted(fact) == sorted(FACT_COLUMNS[table]), fact.keys() ^ set(FACT_COLUMNS[table])
        self.facts[table][fact["org_id"], source_key] = fact

    def add_usage(self, source_key: str, common: Row, kind: str | None, capability_id: str, **own: Any) -> None:
        """A capability usage fact; what its origin does not say takes the values below."""
        defaults: Row = {"turn_id": None, "tool_name": None, "usage_count": 1, "duration_ms": 0}
        ids = {"capability_id": bounded(capability_id), "capability_usage_kind": kind}
        self.add("fact_capability_usage", source_key, common, {**defaults, **ids, **own})

    def common(self, org_id: int, created_at: datetime, **ids: Any) -> Row:
        return {
            "org_id": org_id,
            **ids,
            "agent_name_snapshot": of_org(org_id, self.agents, ids["agent_id"]).get("name"),
            "harness_name_snapshot": of_org(org_id, self.harnesses, ids["harness_id"]).get("name"),
            "created_at": created_at,
            "time_bucket_day": created_at.astimezone(UTC).date(),
        }

    def of_session(self, org_id: int, session_id: Any, created_at: datetime) -> Row:
        session = of_org(org_id, self.sessions, session_id)
        ids = {name: session.get(name) for name in ("agent_id", "harness_id", "app_id", "blueprint_id")}
        owner = {"user_id": session.get("resolved_owner_user_id"), "principal_id": session.get("owner_principal_id")}
        return self.common(org_id, created_at, session_id=session_id, **owner, **ids)

    def llm_generation(self, row: Row) -> None:
        common = self.of_session(row["org_id"], row["session_id"], row["created_at"])
        own = {
            "turn_id": None if row["turn_id"] is None else str(row["turn_id"]),
            "model": bounded(row["model"]),
            "provider": bounded(row["provider"]),
            "finish_reason": row["finish_reason"],
            **{name: row[name] for name in TOKENS},
            "total_tokens": total(row[name] for name in TOKENS),
            "duration_ms": row["duration_ms"] or 0,
            "time_to_first_token_ms": 0,
            **counts(success=True, error=False),
        }
        self.add("fact_llm_generation", f"llm_generation:{row['id']}", common, own)

    def tool_completed(self, event: Row, common: Row) -> None:
        data, succeeded = event["data"], text(event["data"], "success")
        status = text(data, "status")
        fallback = "success" if succeeded == "true" else "error"
        capability_id = capability(member(data, "capability_id"))
        shared = {
            "turn_id": turn_id_of(event, "context", "data"),
            "tool_name": bounded(text(data, "tool_name")),
            "capability_name_snapshot": text(data, "capability_name"),
            "duration_ms": number(data, "duration_ms"),
        }
        own = {
            **shared,
            "tool_call_id": text(data, "tool_call_id"),
            "tool_display_name_snapshot": text(data, "display_name"),
            "tool_status": bounded(fallback if status is None else status),
            "capability_id": bounded(capability_id),
            **counts(call=True, timeout=status == "timeout", cancelled=status == "cancelled"),
            # The counts go by the status as given, and are not each other's opposite: a status and a success flag that
            # disagree count as both, and where neither is given neither counts.
            **counts(
                success=status == "success" or succeeded == "true", error=status == "error" or succeeded == "false"
            ),
        }
        self.add("fact_tool_call", f"event:{event['id']}", common, own)
        if capability_id:
            self.add_usage(f"event:{event['id']}:invoked", common, "invoked", capability_id, **shared)

    def turn(self, event: Row, common: Row) -> None:
        data, status = event["data"], TURN_STATUS[event["event_type"]]
        turn_id = turn_id_of(event, "data", "context")
        tokens = {name: number(member(data, "usage"), name) for name in TOKENS}
        own = {
            "turn_id": turn_id,
            "turn_status": status,
            "duration_ms": number(data, "duration_ms"),
            "iterations": number(data, "iterations"),
            **tokens,
            "total_tokens": total([tokens["input_tokens"], tokens["output_tokens"]]),
            # No turn id is no turn: it does not gather the tool calls that have none either.
            "tool_call_count": 0 if turn_id is None else self.tool_calls[event["session_id"], turn_id],
            **counts(turn=True, success=status == "completed", error=status != "completed"),
        }
        self.add("fact_turn", f"event:{event['id']}", common, own)

    def capability_usage(self, event: Row, common: Row) -> None:
        records = member(event["data"], "records")
        for position, record in enumerate(records if isinstance(records, list) else [], start=1):
            capability_id, kind = capability(member(record, "capability_id")), text(record, "usage_kind")
            if capability_id is None or kind not in USAGE_KINDS:
                continue
            own = {
                "turn_id": turn_id_of(event, "context", "data"),
                "capability_name_snapshot": text(record, "capability_name"),
                "tool_name": bounded(text(record, "tool_name")),
                "usage_count": number(record, "usage_count", default=1),
                "duration_ms": number(record, "duration_ms"),
            }
            self.add_usage(f"event:{event['id']}:capability_usage:{position}", common, kind, capability_id, **own)

    def message_replaced(self, event: Row, common: Row) -> None:
        capability_id = capability(member(event["data"], "guardrail_capability_id"))
        if capability_id:
            own = {"turn_id": turn_id_of(event, "context", "data"), "capability_name_snapshot": capability_id}
            self.add_usage(f"event:{event['id']}:effect_ran", common, "effect_ran", capability_id, **own)

    def session(self, row: Row) -> None:
        common = self.of_session(row["org_id"], row["id"], row["created_at"])
        tokens = {name: row[f"total_{name}"] for name in TOKENS}
        own = {
            "session_status": bounded(row["status"]),
            **{name: row[name] for name in ("started_at", "finished_at", "turn_count", "tool_call_count")},
            "last_active_at": row["updated_at"],
            "session_count": 1,
            "duration_ms": milliseconds(row["started_at"], row["finished_at"]),
            **tokens,
            "total_tokens": total(tokens.values()),
        }
        source_key = f"session:{row['id']}"
        self.add("fact_session", source_key, common, own)
        for scope, capability_id in self.configured(row):
            name = self.capability_names.get((row["org_id"], capability_id), capability_id)
            key = f"{source_key}:configured:{scope}:{bounded(capability_id)}"
            self.add_usage(key, common, "configured", capability_id, capability_name_snapshot=name)

    def configured(self, session: Row) -> set[tuple[str, str]]:
        """Scope and capability id of all that is configured for a session; twice the same is one."""
        elements = session["capabilities"] if isinstance(session["capabilities"], list) else []
        found = [("session", member(element, "ref") if isinstance(element, dict) else element) for element in elements]
        for scope, owners in (("agent", self.agents), ("harness", self.harnesses)):
            owner_id = session[f"{scope}_id"]
            if of_org(session["org_id"], owners, owner_id):
                found += [(scope, capability_id) for capability_id in self.capabilities[scope, owner_id]]
        return {(scope, capability_id) for scope, value in found if (capability_id := capability(value))}

    def budget_posting(self, row: Row) -> None:
        session = of_org(row["org_id"], self.sessions, row["session_id"])
        budget = of_org(row["org_id"], self.budgets, row["budget_id"])
        ids = {name: row[name] for name in ("session_id", "user_id", "principal_id", "agent_id", "harness_id")}
        ids |= {name: session.get(name) for name in ("app_id", "blueprint_id")}
        is_credit = row["amount"] < 0  # NaN is greater than any number to PostgreSQL: a debit
        own = {
            **{name: row[name] for name in ("budget_id", "currency", "meter_source", "ref_type", "amount")},
            "budget_subject_type": budget.get("subject_type"),
            "budget_subject_id": budget.get("subject_id"),
            **counts(debit=not is_credit, credit=is_credit),
        }
        common = self.common(row["org_id"], row["created_at"], **ids)
        self.add("fact_budget_posting", f"usage_ledger:{row['id']}", common, own)
