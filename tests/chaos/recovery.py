"""How long it takes until all is normal again after a fault, measured from a second connection."""

import asyncio
import time

import asyncpg

from tests.chaos.writers import FAULTS

_SETTLED_SINCE = "SELECT EXISTS (SELECT FROM reporting_outbox WHERE status = 'completed' AND updated_at > $1)"


async def projects_again(dsn: str, seconds: float = 30) -> float:
    """Waits until rows are completed that were not before, while writers write; gives the seconds that took."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        try:
            connection = await asyncpg.connect(dsn, timeout=5)
            try:
                since = await connection.fetchval("SELECT clock_timestamp()")
                while time.monotonic() - began < seconds:
                    if await connection.fetchval(_SETTLED_SINCE, since):
                        return time.monotonic() - began
                    await asyncio.sleep(0.01)
            finally:
                connection.terminate()
        except FAULTS:
            await asyncio.sleep(0.01)
    raise AssertionError(f"nothing was projected within {seconds} s")
