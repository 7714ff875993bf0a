"""The platform that traffic happens on: organizations, people, agents and what these are configured with."""

from dataclasses import dataclass
from random import Random
from typing import Final, TypeAlias
from uuid import UUID

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from projector.demo import vocabulary as words
from projector.sqlfile import load_sql

Connection: TypeAlias = asyncpg.Connection | PoolConnectionProxy
Rows: TypeAlias = list[tuple[object, ...]]

MEMBERS_PER_ORG: Final = 6
CURRENCY: Final = "usd"
_NEXT_ORG_ID: Final = load_sql(__file__, "next_org_id.sql")


@dataclass(frozen=True, slots=True)
class Member:
    """A person of an org: the user, and the principal that acts for them."""

    user_id: UUID
    principal_id: UUID


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget of an org for one subject: the org, an agent or a user."""

    id: UUID
    subject_type: str
    subject_id: str
    currency: str = CURRENCY


@dataclass(frozen=True, slots=True)
class Org:
    """An organization and the ids of what belongs to it."""

    org_id: int
    public_id: str
    name: str
    members: tuple[Member, ...]
    agents: tuple[UUID, ...]
    harnesses: tuple[UUID, ...]
    mcp_servers: dict[str, UUID]
    skills: dict[str, UUID]
    budgets: tuple[Budget, ...]

    def capability_id(self, reference: str) -> str:
        """The capability's id as sources of this org write it; KeyError for a server or skill that it has not."""
        prefix, _, name = reference.partition(":")
        if prefix == "mcp":
            return f"mcp:{self.mcp_servers[name]}"
        if prefix == "skill":
            return f"skill:{self.skills[name]}"
        return reference


@dataclass(frozen=True, slots=True)
class Platform:
    """Everything that was seeded."""

    orgs: tuple[Org, ...]


def random_uuid(random: Random) -> UUID:
    """A version 4 UUID that follows from the state of `random`."""
    return UUID(int=random.getrandbits(128), version=4)


async def seed_platform(connection: Connection, random: Random, orgs: int = 4) -> Platform:
    """Write `orgs` organizations with their people, agents and configuration, in one transaction.

    Their org ids follow the highest that there is; all other ids follow from the state of `random`.

    Raises:
        ValueError: `orgs` is below 1.
        asyncpg.UniqueViolationError: the database was seeded before with a Random in the same state.
    """
    if orgs < 1:
        raise ValueError("a platform needs at least one organization")
    async with connection.transaction():
        first = await connection.fetchval(_NEXT_ORG_ID)
        people = _people(random, orgs)
        made = tuple(_org(random, first + n, n, people[n::orgs]) for n in range(orgs))
        await _write_orgs(connection, made)
        await _write_configuration(connection, random, made)
    return Platform(made)


def _people(random: Random, orgs: int) -> list[Member]:
    """All members, dealt out in turn by sorted id: from that the backlog can tell who belongs to which org."""
    users = sorted(random_uuid(random) for _ in range(orgs * MEMBERS_PER_ORG))
    principals = sorted(random_uuid(random) for _ in users)
    return [Member(user, principal) for user, principal in zip(users, principals, strict=True)]


def _org(random: Random, org_id: int, ordinal: int, members: list[Member]) -> Org:
    name = words.ORG_NAMES[ordinal % len(words.ORG_NAMES)]
    agents = tuple(random_uuid(random) for _ in words.AGENT_NAMES)
    subjects = [("org", str(org_id)), ("agent", str(agents[0])), ("agent", str(agents[1]))]
    subjects += [("user", str(member.user_id)) for member in members[:2]]
    return Org(
        org_id=org_id,
        public_id=f"org_{random.getrandbits(128):032x}",
        name=name if ordinal < len(words.ORG_NAMES) else f"{name} {ordinal // len(words.ORG_NAMES) + 1}",
        members=tuple(members),
        agents=agents,
        harnesses=tuple(random_uuid(random) for _ in words.HARNESS_NAMES),
        mcp_servers={server: random_uuid(random) for server in words.names_with("mcp:")},
        skills={skill: random_uuid(random) for skill in words.names_with("skill:")},
        budgets=tuple(Budget(random_uuid(random), *subject) for subject in subjects),
    )


async def _copy(connection: Connection, table: str, columns: str, rows: Rows) -> None:
    await connection.copy_records_to_table(table, records=rows, columns=columns.split())


async def _write_orgs(connection: Connection, orgs: tuple[Org, ...]) -> None:
    """The orgs and all that has a row of its own; parents before children, for the foreign keys."""
    organizations: Rows = [(org.org_id, org.public_id, org.name) for org in orgs]
    users: Rows = [(member.user_id,) for org in orgs for member in org.members]
    principals: Rows = [(member.principal_id,) for org in orgs for member in org.members]
    agents: Rows = [(i, org.org_id, n) for org in orgs for i, n in zip(org.agents, words.AGENT_NAMES, strict=True)]
    harnesses: Rows = [
        (i, org.org_id, n) for org in orgs for i, n in zip(org.harnesses, words.HARNESS_NAMES, strict=True)
    ]
    servers: Rows = [(i, org.org_id, name) for org in orgs for name, i in org.mcp_servers.items()]
    skills: Rows = [(i, org.org_id, name) for org in orgs for name, i in org.skills.items()]
    budgets: Rows = [(b.id, org.org_id, b.subject_type, b.subject_id, b.currency) for org in orgs for b in org.budgets]
    await _copy(connection, "organizations", "org_id public_id name", organizations)
    await _copy(connection, "users", "id", users)
    await _copy(connection, "principals", "id", principals)
    await _copy(connection, "agents", "id org_id name", agents)
    await _copy(connection, "harnesses", "id org_id name", harnesses)
    await _copy(connection, "mcp_servers", "id org_id name", servers)
    await _copy(connection, "skills", "id org_id name", skills)
    await _copy(connection, "budgets", "id org_id subject_type subject_id currency", budgets)


async def _write_configuration(connection: Connection, random: Random, orgs: tuple[Org, ...]) -> None:
    """What the orgs declare themselves, and what their agents and harnesses are configured with."""
    declared = words.names_with("declarative:")
    # The last one has no display name: its plain name is what readers must fall back to.
    declarative: Rows = [
        (org.org_id, name, None if name == declared[-1] else words.CAPABILITY_NAMES[f"declarative:{name}"])
        for org in orgs
        for name in declared
    ]
    of_agents: Rows = [
        (agent, org.capability_id(capability.reference))
        for org in orgs
        for agent in org.agents
        for capability in random.sample(words.CAPABILITIES, random.randint(3, 6))
    ]
    of_harnesses: Rows = [
        (harness, org.capability_id(capability.reference))
        for org in orgs
        for harness in org.harnesses
        for capability in random.sample(words.CAPABILITIES, random.randint(1, 3))
    ]
    await _copy(connection, "declarative_capabilities", "org_id name display_name", declarative)
    await _copy(connection, "agent_capabilities", "agent_id capability_id", of_agents)
    await _copy(connection, "harness_capabilities", "harness_id capability_id", of_harnesses)
