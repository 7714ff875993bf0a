"""Codes of errors: stable, each with its status and title, and each explained where operators look."""

import re
from pathlib import Path

import pytest

import backfill_api
from backfill_api.problems import STATUSES, ApiError, Code, problem_response
from schemas.reports import Problem

LISTED = re.findall(
    r"^\| (\d{3}) \| `([a-z_]+)` \| (.+) \| (.+) \|$",
    (Path(backfill_api.__file__).parent / "ERRORS.md").read_text(encoding="utf-8"), re.MULTILINE,
)  # fmt: skip

CONTRACT = {
    400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 409: "conflict", 422: "unprocessable",
    429: "rate_limited", 500: "internal_error",
}  # fmt: skip


def test_the_list_holds_every_code_once_with_its_status() -> None:
    assert [(int(status), code) for status, code, _, _ in LISTED] == sorted(
        (STATUSES[code], code.value) for code in Code
    )


@pytest.mark.parametrize(("status", "code"), CONTRACT.items())
def test_the_contracts_codes_have_the_contracts_statuses(status: int, code: str) -> None:
    assert STATUSES[Code(code)] == status


@pytest.mark.parametrize("code", Code)
def test_every_code_makes_a_problem(code: Code) -> None:
    answer = problem_response(ApiError(code), "/x")
    problem = Problem.model_validate_json(answer.text or "")
    assert re.fullmatch("[a-z]+(_[a-z]+)*", code)
    assert (problem.code, problem.status, answer.status) == (code, STATUSES[code], STATUSES[code])
    assert problem.title
    assert problem.instance == "/x"


def test_without_a_path_there_is_no_instance() -> None:
    assert '"instance"' not in (problem_response(ApiError(Code.BAD_REQUEST), None).text or "")
