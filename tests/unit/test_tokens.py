"""The token file: what it may hold, whom it lets in, and that it leaks nothing."""

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from backfill_api.caller import Policy
from backfill_api.tokens import TokenFile, TokenFileError, new_token, public_org_id
from tests.credentials import ORG, OTHER_ORG, Clock, Lines, entry, write_tokens

TOKEN = "rpt_of-ops"
HASH = hashlib.sha256(TOKEN.encode()).hexdigest()
CAPITALS = "org_" + ORG[4:].upper()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def opened(path: Path, *entries: dict[str, object]) -> TokenFile:
    write_tokens(path, *entries)
    return TokenFile(path, clock=Clock(), log=Lines().log)


def refusal(path: Path) -> str:
    """What is said of the file as it is."""
    with pytest.raises(TokenFileError) as refused:
        TokenFile(path, clock=Clock(), log=Lines().log)
    # Neither may what was parsed come back by way of a traceback.
    assert refused.value.__cause__ is None or isinstance(refused.value.__cause__, OSError)
    return str(refused.value)


def test_a_token_of_the_file_is_its_caller(path: Path) -> None:
    caller = opened(path, entry(TOKEN, name="ops team@night-1.x_y", policies=["REPORT_VIEW", "REPORT_ADMIN"])).find(
        TOKEN
    )
    assert caller is not None
    assert caller.name == "ops team@night-1.x_y"
    assert caller.orgs == {ORG}
    assert caller.policies == {Policy.REPORT_VIEW, Policy.REPORT_ADMIN}


def test_each_token_is_its_own_caller(path: Path) -> None:
    tokens = opened(path, *(entry(f"token-{n}", name=f"name-{n}") for n in range(20)))
    found = [tokens.find(f"token-{n}") for n in range(20)]
    assert [caller.name for caller in found if caller] == [f"name-{n}" for n in range(20)]


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", TOKEN[:-1], TOKEN.upper(), HASH, "é", "\udcff"])
def test_any_other_token_is_nobody(path: Path, token: str) -> None:
    assert opened(path, entry(TOKEN)).find(token) is None


def test_a_file_without_tokens_lets_nobody_in(path: Path) -> None:
    assert opened(path).find(TOKEN) is None


@pytest.mark.parametrize(
    ("org", "orgs"),
    [
        (ORG, {ORG}), ([ORG], {ORG}), ([ORG, OTHER_ORG], {ORG, OTHER_ORG}), ("*", {"*"}), (CAPITALS, {ORG}),
    ],
)  # fmt: skip
def test_a_token_is_for_one_org_several_or_all(path: Path, org: object, orgs: set[str]) -> None:
    caller = opened(path, entry(TOKEN, org=org)).find(TOKEN)
    assert caller is not None
    assert caller.orgs == orgs
    assert caller.platform_wide is (org == "*")


def test_hashes_may_be_written_in_capitals(path: Path) -> None:
    assert opened(path, entry(TOKEN, sha256=HASH.upper())).find(TOKEN)


def test_every_entry_is_compared_in_constant_time_whichever_matches(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []
    compare: Callable[[str, str], bool] = hmac.compare_digest

    def counting(stored: str, presented: str) -> bool:
        compared.append(stored)
        return compare(stored, presented)

    tokens = opened(path, *(entry(f"token-{n}") for n in range(10)))
    monkeypatch.setattr(hmac, "compare_digest", counting)
    for token in ("token-0", "token-5", "token-9", "none"):
        compared.clear()
        tokens.find(token)
        assert len(set(compared)) == len(compared) == 10


RULES = {
    "name": "must be 1 to 100 letters, digits, dots, dashes, underscores, @ or spaces, a letter or digit first",
    "sha256": "must be the token's SHA-256 as 64 hexadecimal digits",
    "org": "must be `org_` and 32 hexadecimal digits, a list of such ids, or `*` alone for all orgs",
    "policies": "must be a list of one or more of REPORT_VIEW, REPORT_MANAGE, REPORT_ADMIN",
}
BAD_VALUES: dict[str, list[object]] = {
    "name": ["", " x", "x" * 101, "a\nb", "a\0", 1, None, ["x"]],
    "sha256": ["", HASH[:-1], HASH + "0", "g" * 64, HASH + "\n", 1, None, TOKEN],
    "org": [
        "", "org_", "**", ORG[:-1], ORG + "0", ORG + "\n", "ORG" + ORG[3:], 1, None,
        [], ["*"], [ORG, "*"], [ORG, "x"], [[ORG]], [None], {},
    ],
    "policies": [[], ["REPORT"], ["report_view"], "REPORT_VIEW", None, 1, {}],
}  # fmt: skip


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in BAD_VALUES for value in BAD_VALUES[field]])
def test_a_bad_field_is_refused_with_file_entry_and_what_is_allowed(path: Path, field: str, value: object) -> None:
    write_tokens(path, entry("first"), entry(TOKEN, **{field: value}))
    assert refusal(path) == f"{path}: tokens[1].{field} {RULES[field]}"


@pytest.mark.parametrize("field", ["name", "sha256", "org", "policies"])
def test_a_missing_field_is_refused(path: Path, field: str) -> None:
    whole = entry(TOKEN)
    del whole[field]
    write_tokens(path, whole)
    assert refusal(path).startswith(f"{path}: tokens[0].{field} must be ")


def test_all_faults_are_told_at_once(path: Path) -> None:
    write_tokens(path, entry("a", name=""), entry("b"), entry("c", org="x", policies=["y"]))
    told = refusal(path)
    assert [place in told for place in ("tokens[0].name", "tokens[2].org", "tokens[2].policies")] == [True] * 3
    assert "tokens[1]" not in told


def test_unknown_fields_are_refused_and_not_repeated(path: Path) -> None:
    write_tokens(path, entry(TOKEN, **{HASH: "x"}))
    assert refusal(path) == f"{path}: tokens[0] has an unknown field; allowed: name, sha256, org, policies"
    path.write_text(json.dumps({"tokens": [], HASH: 1}))
    assert refusal(path) == f"{path}: the file has an unknown field; allowed: tokens"


@pytest.mark.parametrize("content", ["", "{", '{"tokens": [}', "\x00", f'{{"tokens": ["{HASH}}}'])
def test_a_file_that_is_no_json_is_refused_with_the_place(path: Path, content: str) -> None:
    path.write_text(content)
    told = refusal(path)
    assert told.startswith(f"{path}: is not JSON: ")
    assert "line 1 column" in told
    assert HASH not in told


def test_a_file_that_is_no_utf8_is_refused(path: Path) -> None:
    path.write_bytes(b'{"tokens": [{"name": "\xff"}]}')
    assert "is not JSON" in refusal(path)


@pytest.mark.parametrize("content", ["[]", "1", "null", "{}", '{"tokens": {}}', '{"tokens": null}'])
def test_a_file_of_another_shape_is_refused(path: Path, content: str) -> None:
    path.write_text(content)
    assert refusal(path) == f'{path}: the file must be an object {{"tokens": […]}} with a list of entries'


def test_an_entry_of_another_shape_is_refused(path: Path) -> None:
    path.write_text(json.dumps({"tokens": [entry(TOKEN), HASH]}))
    assert refusal(path) == f"{path}: tokens[1] must be an object with name, sha256, org, policies"


def test_one_hash_twice_is_refused(path: Path) -> None:
    write_tokens(path, entry(TOKEN), entry("other"), entry(TOKEN, sha256=HASH.upper(), org="*"))
    assert refusal(path) == f"{path}: tokens[2].sha256 is that of tokens[0]: every token stands once"


def test_no_refusal_repeats_a_hash(path: Path) -> None:
    for field in ("name", "org", "policies"):
        write_tokens(path, entry(TOKEN, **{field: HASH + "!"}))
        assert HASH not in refusal(path)
    write_tokens(path, entry(TOKEN, sha256=HASH + "!"))
    assert HASH not in refusal(path)


def test_a_file_that_is_missing_or_not_readable_is_refused(path: Path, tmp_path: Path) -> None:
    assert refusal(path) == f"{path}: No such file or directory"
    path = tmp_path
    assert refusal(path) == f"{tmp_path}: Is a directory"


def test_a_new_token_is_random_readable_and_comes_with_its_hash(path: Path) -> None:
    made = [new_token() for _ in range(100)]
    assert len({token for token, _ in made}) == len({hashed for _, hashed in made}) == 100
    token, hashed = made[0]
    assert token.startswith("rpt_")
    assert len(token) >= 4 + 43
    assert opened(path, entry(TOKEN, sha256=hashed)).find(token)


def test_public_ids_are_recognized_exactly() -> None:
    assert public_org_id(ORG) == ORG
    assert public_org_id("org_" + "AB" * 16) == "org_" + "ab" * 16
    for text in ("", "*", ORG + "\n", " " + ORG, ORG[:-1], "ORG_" + "a" * 32, "org_" + "٣" * 32, "org-" + "a" * 32):
        assert public_org_id(text) is None
