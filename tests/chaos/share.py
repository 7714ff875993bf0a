"""How much of the attacks is run, and from which seed."""

from dataclasses import dataclass
from random import Random

import pytest

_SEED_OF_THE_SHARE = 1


@dataclass(frozen=True, slots=True)
class Chaos:
    """Attributes: seed: what all that is random comes from; full: whether all is run, or the share that CI runs."""

    seed: int
    full: bool

    def random(self, purpose: str) -> Random:
        """Randomness of its own for each purpose, so that one does not shift another's."""
        return Random(f"{self.seed} {purpose}")

    def times(self, full: int, share: int) -> int:
        """How often something is done: in full, or in CI's share."""
        return full if self.full else share


def _chaos(config: pytest.Config) -> Chaos:
    full = bool(config.getoption("--chaos-full"))
    seed = config.getoption("--chaos-seed")
    if seed is None:
        seed = Random().randrange(1_000_000) if full else _SEED_OF_THE_SHARE
        config.option.chaos_seed = seed
    return Chaos(int(seed), full)


@pytest.fixture(scope="session")
def chaos(request: pytest.FixtureRequest) -> Chaos:
    """How much is run, and from which seed."""
    return _chaos(request.config)


def pytest_report_header(config: pytest.Config) -> str:
    """Prints the seed, to run the same again."""
    found = _chaos(config)
    return f"chaos: {'all' if found.full else 'the share of CI'}, --chaos-seed {found.seed}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is marked `full_only` (longer than CI has time for) unless all is run."""
    if _chaos(config).full:
        return
    left_out = [item for item in items if item.get_closest_marker("full_only")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
