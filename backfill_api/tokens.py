"""Bearer tokens from a file that holds only their hashes (contract: http.md, who calls)."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import structlog
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from backfill_api.caller import ALL_ORGS, Caller, Policy

_PREFIX = "rpt_"
_CHECK_SECONDS = 1.0
_ORG_ID = re.compile("org_[0-9a-fA-F]{32}")

# What each field may hold, for refusals: they are worded here, because the parser's own words may repeat what it read.
_ALLOWED = {
    "name": "1 to 100 letters, digits, dots, dashes, underscores, @ or spaces, a letter or digit first",
    "sha256": "the token's SHA-256 as 64 hexadecimal digits",
    "org": "`org_` and 32 hexadecimal digits, a list of such ids, or `*` alone for all orgs",
    "policies": "a list of one or more of " + ", ".join(Policy),
}

Stamp = tuple[int, int, int]


class TokenFileError(Exception):
    """A token file cannot be used; the message names file, entry and what is allowed, and repeats no hash."""


def public_org_id(text: str) -> str | None:
    """The public id of an org in its canonical, lower case; None if malformed (contract: http.md, who calls)."""
    return text.lower() if _ORG_ID.fullmatch(text) else None


def new_token() -> tuple[str, str]:
    """A new random token, and its SHA-256 in hex for the file (contract: http.md, who calls)."""
    token = _PREFIX + secrets.token_urlsafe(32)
    return token, _hash(token)


def new_entry(name: str, orgs: Sequence[str], policies: Sequence[str]) -> tuple[str, dict[str, object]]:
    """A new random token, and its entry for the file.

    Args:
        name: what logs and the audit call its holder.
        orgs: public ids, or `*` alone.
        policies: of `Policy`, one or more.

    Raises:
        TokenFileError: one of these is not allowed; the message says what is.
    """
    token, hashed = new_token()
    org: object = orgs[0] if len(orgs) == 1 else list(orgs)
    entry: dict[str, object] = {"name": name, "sha256": hashed, "org": org, "policies": list(policies)}
    try:
        _Document.model_validate({"tokens": [entry]})
    except ValidationError as error:
        raise TokenFileError(_explain(error).replace("tokens[0].", "")) from None
    return token, entry


def _hash(token: str) -> str:
    # A header may hold bytes that are no UTF-8, which reach us as surrogates; they are hashed like anything else.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _orgs(value: object) -> frozenset[str]:
    if value == ALL_ORGS:
        return frozenset({ALL_ORGS})
    listed: list[Any] = value if isinstance(value, list) else [value]
    orgs = frozenset(public_org_id(item) if isinstance(item, str) else None for item in listed)
    known = frozenset(org for org in orgs if org is not None)
    if not known or known != orgs:
        raise ValueError("no orgs")
    return known


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@ -]{0,99}$")]
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-fA-F]{64}$", to_lower=True)]
    org: Annotated[frozenset[str], BeforeValidator(_orgs)]
    policies: Annotated[frozenset[Policy], Field(min_length=1)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    tokens: list[_Entry]


class TokenFile:
    """The tokens of a JSON file, read again when the file changes (contract: http.md, who calls).

    The file: `{"tokens": [{"name": "ops", "sha256": "…", "org": "org_…", "policies": ["REPORT_VIEW"]}]}`, where `org`
    may also be a list of ids, or `*` for all.

    Args:
        path: the file.
        clock: seconds that never go back, such as `time.monotonic`.
        log: told of changes of the file, never of its content.

    Raises:
        TokenFileError: the file cannot be read, or is not as it must be.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float], log: structlog.stdlib.BoundLogger) -> None:
        self._path = path
        self._clock = clock
        self._log = log
        self._checked_at = clock()
        self._read: Stamp | None = None
        self._complaint: tuple[Stamp | None, str] | None = None
        self._entries: list[tuple[str, Caller]] = []
        self._load(self._stamp())

    def find(self, token: str) -> Caller | None:
        """The caller that a token stands for; None for a token that is not in the file.

        Never raises: a file that has become unusable leaves the tokens as they were.
        """
        self._refresh()
        presented = _hash(token)
        found = None
        # Every entry is compared, so that the time it takes tells nothing of which one matched, or how nearly.
        for stored, caller in self._entries:
            if hmac.compare_digest(stored, presented):
                found = caller
        return found

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._checked_at < _CHECK_SECONDS:
            return
        self._checked_at = now
        stamp = None
        try:
            stamp = self._stamp()
            if stamp == self._read:
                return
            self._load(stamp)
        except TokenFileError as error:
            # Tried again each second, since the fault may be of the moment; told once.
            complaint = (stamp, str(error))
            if complaint != self._complaint:
                self._log.error("token file not usable, the old tokens stand", error=str(error))
            self._complaint = complaint
        else:
            self._complaint = None
            self._log.info("token file read again", tokens=len(self._entries))

    def _stamp(self) -> Stamp:
        """What changes with the file: a mounted secret changes by a swapped link, hence the inode."""
        try:
            stat = self._path.stat()
        except OSError as error:
            raise TokenFileError(f"{self._path}: {error.strerror}") from error
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _load(self, stamp: Stamp) -> None:
        """Reads the file. The stamp was taken before: a change while it is read shows as one more change."""
        try:
            content = self._path.read_bytes()
        except OSError as error:
            raise TokenFileError(f"{self._path}: {error.strerror}") from error
        try:
            document = _Document.model_validate_json(content)
        except ValidationError as error:
            # Without its cause: that holds what was read.
            raise TokenFileError(f"{self._path}: {_explain(error)}") from None
        _refuse_doubles(self._path, document)
        self._entries = [(entry.sha256, Caller(entry.name, entry.org, entry.policies)) for entry in document.tokens]
        self._read = stamp


def _refuse_doubles(path: Path, document: _Document) -> None:
    seen: dict[str, int] = {}
    for index, entry in enumerate(document.tokens):
        first = seen.setdefault(entry.sha256, index)
        if first != index:
            raise TokenFileError(f"{path}: tokens[{index}].sha256 is that of tokens[{first}]: every token stands once")


def _explain(error: ValidationError) -> str:
    """Says where each fault is and what is allowed there; what was read is never repeated, field names included."""
    lines: dict[str, None] = {}
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        place = problem["loc"]
        entry = f"tokens[{place[1]}]" if len(place) > 1 else "the file"
        field = str(place[2]) if len(place) > 2 else ""  # noqa: PLR2004
        if problem["type"] == "json_invalid":
            lines["is not JSON: " + problem["msg"].removeprefix("Invalid JSON: ")] = None
        elif problem["type"] == "extra_forbidden":
            lines[f"{entry} has an unknown field; allowed: {', '.join(_ALLOWED) if len(place) > 1 else 'tokens'}"] = (
                None
            )
        elif field:
            lines[f"{entry}.{field} must be {_ALLOWED[field]}"] = None
        elif len(place) > 1:
            lines[f"{entry} must be an object with {', '.join(_ALLOWED)}"] = None
        else:
            lines['the file must be an object {"tokens": […]} with a list of entries'] = None
    return "; ".join(lines)
