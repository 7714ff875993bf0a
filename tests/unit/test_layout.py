"""Small guards of how the sources are laid out (design: layout)."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import backfill_api
import projector
import schemas
from projector import projections
from projector.registry import Projection, Registry
from tests.catalog import TABLES

PROJECTOR = Path(projector.__file__).parent
SCHEMAS = Path(schemas.__file__).parent
BACKFILL_API = Path(backfill_api.__file__).parent
PYTHON_FILES = sorted(path for folder in (PROJECTOR, SCHEMAS, BACKFILL_API) for path in folder.rglob("*.py"))
SQL_FILES = sorted(path for folder in (PROJECTOR, SCHEMAS, BACKFILL_API) for path in folder.rglob("*.sql"))
STATEMENTS = sorted([*(PROJECTOR / "sql").glob("*.sql"), *(BACKFILL_API / "sql").glob("*.sql")])

LONGEST_FILE = 300
LONGER_FILES: dict[str, str] = {}
"""Python files that may be longer, each with the reason."""


def name_of(path: Path) -> str:
    return str(path.relative_to(PROJECTOR.parent))


def without_comments(sql: str) -> str:
    return re.sub(r"--[^\n]*", "", sql)


def test_every_projections_folder_is_in_the_registry() -> None:
    folders = [module.name for module in pkgutil.iter_modules(projections.__path__) if module.ispkg]
    found = [importlib.import_module(f"projector.projections.{name}").PROJECTION for name in folders]
    assert len(found) == len(folders) > 0
    assert all(isinstance(projection, Projection) for projection in found)
    assert {projection.name for projection in found} == set(folders)
    assert {projection.source_type for projection in found} == {
        projection.source_type for projection in projections.BUILT_IN
    }
    assert set(projections.BUILT_IN) <= set(projections.load_registry())


def test_the_projections_feed_all_fact_tables_each_under_one_name() -> None:
    tables = Registry(projections.BUILT_IN).tables
    assert sorted(table.name for table in tables) == sorted(set(TABLES) - {"reporting_outbox"})
    assert len({table.dataset for table in tables}) == len(tables)


@pytest.mark.parametrize("path", SQL_FILES, ids=name_of)
def test_a_sql_file_begins_with_a_comment_that_says_what_it_does(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert re.fullmatch(r"-- \S.{10,}", first)


def test_there_are_sql_files() -> None:
    assert len(SQL_FILES) > 20
    assert len(STATEMENTS) > 8


@pytest.mark.parametrize("path", STATEMENTS, ids=name_of)
def test_statuses_stand_as_literals_so_that_partial_indexes_match(path: Path) -> None:
    sql = without_comments(path.read_text(encoding="utf-8"))
    assert not re.search(r"\bstatus\b\s*(=|<>|!=|IN|=\s*ANY)\s*\(?\s*\$", sql, re.IGNORECASE)
    assert not re.search(r"\$\d+\s*(::text)?\s*(=|<>)\s*(\w+\.)?status\b", sql, re.IGNORECASE)


@pytest.mark.parametrize("path", SQL_FILES, ids=name_of)
def test_no_file_holds_trailing_spaces_tabs_or_a_missing_last_line_end(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert not re.search(r"[ \t]+$|\t", text, re.MULTILINE)


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name_of)
def test_a_python_file_fits_on_a_few_screens(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE or name_of(path) in LONGER_FILES


def test_the_list_of_longer_files_holds_no_others() -> None:
    for name in LONGER_FILES:
        assert len((PROJECTOR.parent / name).read_text(encoding="utf-8").splitlines()) > LONGEST_FILE


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name_of)
def test_sql_that_writes_rows_stands_in_sql_files(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    written = re.findall(r"\b(?:INSERT INTO|DELETE FROM|UPDATE) (\w+)", text)
    assert set(written) <= {"reporting_projector_migrations"}
