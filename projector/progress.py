"""A progress bar on a terminal; nothing where output goes elsewhere."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Rows(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{int(task.completed):,} rows")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} rows/s" if speed else "")


class _Note(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")


class RowsProgress:
    """Counts rows, towards a total that may grow while the work goes on or that nobody knows."""

    def __init__(self, what: str, total: int | None, visible: bool) -> None:
        """Args: what: the bar's label; total: rows expected, None if unknown; visible: whether anybody sees it."""
        columns: tuple[ProgressColumn, ...] = (
            (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
            if total is not None
            else (BarColumn(bar_width=12), _Rows(), _Rate(), TimeElapsedColumn(), _Note())
        )
        label = TextColumn("{task.description}")
        self._progress = Progress(label, *columns, console=Console(stderr=True), disable=not visible)
        self._task = self._progress.add_task(what, total=total, note="")
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
        if self._total is not None:
            self._total = max(self._total, self._done)
        self._progress.update(self._task, completed=self._done, total=self._total)

    def note(self, text: str) -> None:
        """Shows a text behind a bar without a total."""
        self._progress.update(self._task, note=text)
