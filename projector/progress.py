"""A progress bar on a terminal; nothing where output goes elsewhere."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} rows/s" if speed else "")


class RowsProgress:
    """Counts rows towards a total that may grow while the work goes on."""

    def __init__(self, what: str, total: int, visible: bool) -> None:
        """Args: what: the bar's label; total: rows expected; visible: whether anybody sees it."""
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(),
        )  # fmt: skip
        self._progress = Progress(*columns, console=Console(stderr=True), disable=not visible)
        self._task = self._progress.add_task(what, total=total)
        self._total = total
        self._done = 0

    def __enter__(self) -> Self:
        """Shows the bar."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leaves the bar as it is."""
        self._progress.stop()

    def advance(self, rows: int) -> None:
        """Counts rows that are done."""
        self._done += rows
        self._total = max(self._total, self._done)
        self._progress.update(self._task, completed=self._done, total=self._total)
