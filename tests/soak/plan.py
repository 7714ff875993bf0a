"""How long a run is, how much is written, and how often something breaks."""

from dataclasses import dataclass

_LONGEST_RETENTION = 60.0
_LONGEST_SAMPLE_PAUSE = 5.0
_FEWEST_SAMPLES = 30
_LONG_RUN_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asks for.

    Attributes:
        seconds: how long the load lasts.
        rate: transactions a second, about; each writes one to six outbox rows.
        fault_pause: the mean pause between two faults, in seconds.
        seed: what all that is random comes from.
    """

    seconds: float
    rate: float
    fault_pause: float
    seed: int

    @property
    def retention_seconds(self) -> int:
        """How long completed rows are kept: a tenth of a short run, so that it sees them go."""
        return max(round(min(self.seconds / 10, _LONGEST_RETENTION)), 1)

    @property
    def sample_pause(self) -> float:
        """Seconds between two samples."""
        return min(self.seconds / _FEWEST_SAMPLES, _LONGEST_SAMPLE_PAUSE)

    @property
    def lag_slack(self) -> float:
        """By how many seconds lag may grow: a short run is full of faults, and of what has only just started."""
        return 1.0 if self.seconds >= _LONG_RUN_SECONDS else 5.0
