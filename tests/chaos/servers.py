"""A PostgreSQL of a case's own, which goes down and comes up again at the same port."""

import asyncio
import contextlib
import os
import signal
import tempfile
from pathlib import Path
from typing import Self

from projector.demo.embedded import EmbeddedPostgres, database_dsn, embedded_postgres
from tests.conftest import FAST, SOURCES_SQL, run_on
from tests.obstacles import wait_until
from tests.roles import OWNER, add_users, as_user, migrate_by_role

_DATABASE = "chaos"
_DOWN_SECONDS = 30.0


class ChaosServer:
    """A server with data of its own. Down at first; used as a context, it is down again at the end."""

    def __init__(self, **settings: str) -> None:
        """Args: settings: of the server, stronger than the tests' usual ones."""
        # What was committed stays when the server crashes, as on a real one; the disk itself does not fail here.
        self._settings = {**FAST, "synchronous_commit": "on", **settings}
        self._stack, self._for_good = contextlib.ExitStack(), contextlib.ExitStack()
        self._folder = Path()
        self._server: EmbeddedPostgres | None = None

    async def __aenter__(self) -> Self:
        # Open to the account that the server runs as: where it cannot enter, its data would last for one start alone.
        folder = tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True)
        self._folder = Path(self._for_good.enter_context(folder))
        self._folder.chmod(0o755)
        await self.up()
        await run_on(await add_users(self.server.dsn), f"CREATE DATABASE {_DATABASE}")
        await run_on(self.dsn, SOURCES_SQL.read_text(encoding="utf-8"))
        await migrate_by_role(self.dsn)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.to_thread(self._stack.close)
        self._for_good.close()

    @property
    def server(self) -> EmbeddedPostgres:
        """The server as it was last started."""
        assert self._server is not None
        return self._server

    @property
    def dsn(self) -> str:
        """Of the case's database, as its owner: canonical tables, outbox and facts. The same after a restart."""
        return database_dsn(as_user(self.server.dsn, OWNER), _DATABASE)

    @property
    def log(self) -> str:
        """What it has logged since it was last started."""
        return (self._folder / "postgres.log").read_text(encoding="utf-8", errors="replace")

    async def up(self) -> None:
        """Starts it, at the port it had."""
        if self._server is not None:
            self._settings["port"] = str(self._server.port)
        self._server = await asyncio.to_thread(
            self._stack.enter_context, embedded_postgres(self._folder, self._settings)
        )

    async def down(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """Shuts it down: SIGQUIT is an immediate shutdown, as a crash; SIGINT a fast one."""
        os.kill(self.server.process_id, number)
        lock_file = self.server.data_directory / "postmaster.pid"

        async def is_down() -> bool:
            return not lock_file.exists()

        await wait_until(is_down, _DOWN_SECONDS)
        await asyncio.to_thread(self._stack.close)
        self._stack = contextlib.ExitStack()
