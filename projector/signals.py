"""How signals end the daemon's process."""

import asyncio
import signal

from projector.process import Process


async def run_until_signal(daemon: Process) -> int:
    """Runs a daemon until SIGTERM or SIGINT; a second signal stops it at once (status 1). The process must end then."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(daemon.run())

    def on_signal(name: str) -> None:
        if daemon.stop.is_set():
            daemon.log.warning("second signal, stopping at once; batches at work are rolled back", signal=name)
            task.cancel()
            return
        daemon.log.info("stopping: batches at work end, none begins", signal=name)
        daemon.stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number.name)
    try:
        return await task
    except asyncio.CancelledError:
        return 1
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            # What is left is to leave: a signal that comes now must not take the exit status from the process.
            signal.signal(number, signal.SIG_IGN)
