"""Who calls, and what they may do (contract: http.md, who calls)."""

from dataclasses import dataclass
from enum import StrEnum

from backfill_api.problems import ApiError, Code


class Policy(StrEnum):
    """What a credential may be allowed to do, as token files name it."""

    REPORT_VIEW = "REPORT_VIEW"
    REPORT_MANAGE = "REPORT_MANAGE"
    REPORT_ADMIN = "REPORT_ADMIN"


# Policy, and the permission that it requires, as the platform words them in its answers.
_WORDS = {
    Policy.REPORT_VIEW: ("report.view", "org:reports:view"),
    Policy.REPORT_MANAGE: ("report.manage", "org:reports:manage"),
    Policy.REPORT_ADMIN: ("report.admin", "org:reports:admin"),
}

ALL_ORGS = "*"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller.

    Attributes:
        name: for logs and the audit: a token's name, or a JWT's subject.
        orgs: public ids of the orgs it belongs to, or `*` alone for all of the platform.
        policies: what it may do in them.
    """

    name: str
    orgs: frozenset[str]
    policies: frozenset[Policy]

    @property
    def platform_wide(self) -> bool:
        """Whether it may act on every org."""
        return ALL_ORGS in self.orgs

    def require(self, policy: Policy) -> None:
        """Raises ApiError (403) unless the caller has the policy."""
        if policy not in self.policies:
            name, permission = _WORDS[policy]
            raise ApiError(Code.FORBIDDEN, f"Access denied: policy '{name}' requires '{permission}'")
