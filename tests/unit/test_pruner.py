"""How long the pruner rests between two rounds."""

import pytest

from projector.pruner import pause_after_round


@pytest.mark.parametrize(
    ("retention", "seconds"), [(0, 1), (1, 1), (10, 1), (60, 6), (600, 60), (604_800, 60), (3_153_600_000, 60)]
)
def test_a_pause_is_a_tenth_of_the_retention_within_a_second_and_a_minute(retention: float, seconds: float) -> None:
    assert pause_after_round(retention) == seconds
