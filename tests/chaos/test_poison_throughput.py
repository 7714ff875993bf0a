"""One row of a hundred is bad: what that costs the others (design: promise 3)."""

import json
from pathlib import Path
from statistics import median

import pytest

from tests.chaos.poison import add_backlog, add_hopeless, refuse
from tests.chaos.share import Chaos
from tests.conftest import TEMPLATE, run_on
from tests.obstacles import opened
from tests.processes import projector

_EVERY = 100
# Half is wished for, 0.34 was measured: where an error does not name the row, finding it takes some nine attempts of
# two round trips each, a good row a share of one. Below this something is worse.
_LEAST = 0.2

_AS_NEW = """
    TRUNCATE fact_tool_call, fact_turn, fact_session, fact_llm_generation, fact_budget_posting, fact_capability_usage;
    UPDATE reporting_outbox SET status = 'pending', attempts = 0, next_attempt_at = now(), last_error = NULL;
"""


@pytest.mark.full_only
async def test_good_rows_keep_a_share_of_their_throughput_beside_one_bad_row_of_a_hundred(
    chaos: Chaos, database: str, tmp_path: Path
) -> None:
    rows = chaos.times(5_000, 1_000)
    clean, poisoned = database, f"{database}_poisoned"
    await run_on(database, f'CREATE DATABASE "{poisoned.rpartition("/")[2]}" TEMPLATE {TEMPLATE} STRATEGY file_copy')
    try:
        async with opened(clean) as connection:
            await add_backlog(connection, rows, 0)
        async with opened(poisoned) as connection:
            await add_backlog(connection, rows, _EVERY)
            await add_hopeless(connection, 4 * rows // _EVERY // 4)
            await refuse(connection)
        rates: dict[str, list[float]] = {clean: [], poisoned: []}
        for _ in range(chaos.times(5, 3)):
            for dsn, found in rates.items():
                found.append(await _drained(dsn, tmp_path))
        ratio = median(rates[poisoned]) / median(rates[clean])
        print(f"good rows a second: clean {rates[clean]}, poisoned {rates[poisoned]}, ratio {ratio:.2f}")  # noqa: T201
        assert ratio >= _LEAST, rates
    finally:
        await run_on(database, f'DROP DATABASE "{poisoned.rpartition("/")[2]}" WITH (FORCE)')


async def _drained(dsn: str, folder: Path) -> float:
    """Drains all as if it were new, in a process of its own; gives the rows that it completed, a second."""
    async with opened(dsn) as connection:
        await connection.execute(_AS_NEW)
        await connection.execute("VACUUM ANALYZE reporting_outbox")
    ran = await projector("drain", folder=folder, database_url=dsn, reporting_log_level="error")
    result = json.loads(ran.out.splitlines()[-1])
    assert result["completed"] > 0, ran.err
    return float(result["completed"] / result["seconds"])
