"""Every statement of a batch is prepared once for a connection, however long it is."""

from projector.database import open_pool
from projector.projections import BUILT_IN
from tests.daemons import settings_for


async def test_projections_are_prepared_once_though_the_driver_gives_up_at_15_kilobytes(database: str) -> None:
    assert any(len(projection.project) > 15 * 1024 for projection in BUILT_IN)
    pool = await open_pool(settings_for(database), 1)
    try:
        async with pool.acquire() as connection:
            for projection in BUILT_IN:
                await connection.fetch(projection.project, [], [], False)
            records = await connection.fetch("SELECT statement FROM pg_prepared_statements WHERE name <> ''")
        prepared = {record["statement"] for record in records}
        assert {projection.project for projection in BUILT_IN} <= prepared
    finally:
        await pool.close()
