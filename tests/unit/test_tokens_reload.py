"""The token file as it changes: read again soon and seldom, and never lost to a bad version."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backfill_api.tokens import TokenFile
from tests.credentials import Clock, Lines, entry, write_tokens

TOKEN = "rpt_of-ops"
HASH = hashlib.sha256(TOKEN.encode()).hexdigest()


class Opened:
    """A token file of a test, and what was logged of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.lines = Lines()

    def write(self, *entries: dict[str, object]) -> None:
        write_tokens(self.path, *entries)

    def open(self) -> TokenFile:
        return TokenFile(self.path, clock=self.clock, log=self.lines.log)


@pytest.fixture
def file(tmp_path: Path) -> Opened:
    return Opened(tmp_path / "tokens.json")


def test_a_change_counts_within_a_second_and_is_logged(file: Opened) -> None:
    file.write(entry("old"))
    tokens = file.open()
    assert tokens.find("old")
    file.write(entry("new"), entry("newer"))
    file.clock.now += 1
    assert tokens.find("new")
    assert tokens.find("old") is None
    assert list(file.lines) == [("info", '{"tokens": 2, "event": "token file read again"}')]


def test_the_file_is_looked_at_once_a_second_at_the_most(file: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write(entry(TOKEN))
    tokens = file.open()
    looks: list[Path] = []
    stat: Callable[..., os.stat_result] = Path.stat

    def counting(path: Path, **options: Any) -> os.stat_result:
        looks.append(path)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", counting)
    for _ in range(1000):
        file.clock.now += 0.01
        tokens.find(TOKEN)
    assert 9 <= len(looks) <= 10


def test_a_file_that_did_not_change_is_not_read_again(file: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write(entry(TOKEN))
    tokens = file.open()
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read again"))
    for _ in range(10):
        file.clock.now += 1
        assert tokens.find(TOKEN)
    assert not list(file.lines)


def test_a_swapped_link_counts_as_a_change_whatever_size_and_time(file: Opened, tmp_path: Path) -> None:
    versions = []
    for token in ("token-1", "token-2"):
        (tmp_path / token).mkdir()
        versions.append(tmp_path / token / "tokens.json")
        versions[-1].write_text(json.dumps({"tokens": [entry(token)]}))
        os.utime(versions[-1], ns=(10**18, 10**18))
    data = tmp_path / "..data"
    data.symlink_to("token-1")
    file.path.symlink_to(Path("..data") / "tokens.json")
    tokens = file.open()
    (tmp_path / "..next").symlink_to("token-2")
    (tmp_path / "..next").rename(data)
    assert versions[0].stat().st_size == versions[1].stat().st_size
    file.clock.now += 1
    assert tokens.find("token-1") is None
    assert tokens.find("token-2")


@pytest.mark.parametrize(
    ("nanoseconds", "text"), [(10**18 + 1, [entry("token-2")]), (10**18, [entry("token-2", name="longer")])]
)
def test_a_change_in_place_counts_by_time_or_by_size(
    file: Opened, nanoseconds: int, text: list[dict[str, object]]
) -> None:
    file.write(entry("token-1"))
    os.utime(file.path, ns=(10**18, 10**18))
    tokens = file.open()
    file.write(*text)
    os.utime(file.path, ns=(nanoseconds, nanoseconds))
    file.clock.now += 1
    assert tokens.find("token-2")


def test_a_file_that_became_bad_leaves_the_old_tokens_and_is_logged_once(file: Opened) -> None:
    file.write(entry(TOKEN))
    tokens = file.open()
    file.write(entry("other", sha256=HASH + HASH))
    for _ in range(5):
        file.clock.now += 1
        assert tokens.find(TOKEN)
        assert tokens.find("other") is None
    ((level, line),) = list(file.lines)
    assert level == "error"
    assert f"{file.path}: tokens[0].sha256 must be " in line
    assert HASH not in line
    file.path.write_text("{")
    file.clock.now += 1
    assert tokens.find(TOKEN)
    assert [level for level, _ in list(file.lines)] == ["error", "error"]


def test_a_file_that_is_gone_leaves_the_old_tokens_until_it_is_back(file: Opened) -> None:
    file.write(entry(TOKEN))
    tokens = file.open()
    file.path.unlink()
    for _ in range(3):
        file.clock.now += 1
        assert tokens.find(TOKEN)
    file.write(entry("other"))
    file.clock.now += 1
    assert tokens.find(TOKEN) is None
    assert tokens.find("other")
    assert [level for level, _ in list(file.lines)] == ["error", "info"]


def test_a_fault_of_the_moment_while_reading_does_not_hide_the_change(
    file: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write(entry(TOKEN))
    tokens = file.open()
    file.write(entry("other"))

    def failing(_: Path) -> bytes:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "read_bytes", failing)
        file.clock.now += 1
        assert tokens.find(TOKEN)
    file.clock.now += 1
    assert tokens.find(TOKEN) is None
    assert tokens.find("other")
