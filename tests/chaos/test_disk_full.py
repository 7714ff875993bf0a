"""A disk that is full and then is not: nobody's attempt, whoever met it (promises 1, 3 and 9)."""

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.probes import is_ready, says
from tests.chaos.recovery import projects_again
from tests.chaos.servers import ChaosServer
from tests.chaos.share import Chaos
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Writers
from tests.obstacles import opened

_SIZE = "24m"
_CHUNK = b"\0" * 4096
_RECOVERS_WITHIN = 15.0

# All that facts, or the outbox's indexes, take.
_MOVED = {
    "facts": """
        SELECT format(
            'ALTER %s %s SET TABLESPACE small', CASE relkind WHEN 'i' THEN 'INDEX' ELSE 'TABLE' END, oid::regclass
        )
        FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relname LIKE 'fact\\_%' AND relkind IN ('r', 'i')
    """,
    "the outbox's indexes": """
        SELECT format('ALTER INDEX %s SET TABLESPACE small', indexrelid::regclass)
        FROM pg_index WHERE indrelid = 'reporting_outbox'::regclass
    """,
}


@contextmanager
def small_disk(owner: os.stat_result) -> Iterator[Path]:
    """A file system of its own, a few megabytes large, with a folder that belongs to the server's account."""
    with tempfile.TemporaryDirectory(prefix="small-disk-") as name:
        place = Path(name)
        try:
            command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=755", "tmpfs", name]
            mounted = subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
        except FileNotFoundError:
            mounted = False
        if not mounted:
            pytest.skip("a small disk cannot be mounted here; it takes root and the right to mount")
        try:
            folder = place / "tablespace"
            folder.mkdir()
            os.chown(folder, owner.st_uid, owner.st_gid)
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", name], timeout=10, check=True)


def fill(disk: Path) -> Path:
    """Takes all that is left of a disk; gives the file that takes it."""
    ballast = disk.parent / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(_CHUNK)
        except OSError:
            return ballast


@pytest.mark.parametrize("what", ["facts", pytest.param("the outbox's indexes", marks=pytest.mark.full_only)])
async def test_a_full_disk_is_nobodys_attempt(
    chaos: Chaos, tmp_path: Path, what: str, record_property: Callable[[str, object], None]
) -> None:
    random = chaos.random(f"full disk of {what}")
    took = []
    async with ChaosServer() as server:
        with small_disk(server.server.data_directory.stat()) as disk:
            async with opened(server.dsn) as connection:
                await connection.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
                for record in await connection.fetch(_MOVED[what]):
                    await connection.execute(record[0])
            async with Fleet(server.dsn, tmp_path) as fleet, asyncio.TaskGroup() as group:
                writers = Writers(server.dsn, chaos.random(f"writers of full disk of {what}"))
                group.create_task(writers.run())
                (daemon,) = await fleet.start()
                for _ in range(chaos.times(3, 1)):
                    await projects_again(server.dsn)
                    ballast = fill(disk)
                    await says(daemon, "53100 DiskFullError", 60)
                    await asyncio.sleep(random.uniform(0, 2))
                    ballast.unlink()
                    took.append(await projects_again(server.dsn))
                    await is_ready(daemon)
                writers.stop.set()
                await settled(server.dsn)
                assert await fleet.stop_all() == [0]
            assert await verify(server.dsn) > 0
            await server.down()
    record_property("normal again", max(took))
    assert max(took) < _RECOVERS_WITHIN
