"""What the bodies of all requests and answers are made of."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1, json_schema_extra={"format": "int32"})]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1, json_schema_extra={"format": "int64"})]


def _whole(value: object) -> object:
    """153.0 is an integer to JSON Schema, and to clients that have no other numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie within the years 1 to 9999 in UTC") from None


whole = BeforeValidator(_whole)
"""Takes a whole number however requests write it; stands behind the type and its bounds."""

Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A moment as requests write it: RFC 3339 with an offset."""

OrgId = Annotated[
    str,
    Field(
        pattern=r"^(\*|org_[0-9a-fA-F]{32})$",
        description="For credentials of several orgs: which one, `org_` and 32 hexadecimal digits, or `*` for all.",
    ),
]
"""An org as requests name it; `*` stands for all."""


SourceType = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A source type as requests name it. The database takes no NUL, and nobody writes the other control characters."""


class Body(BaseModel):
    """A body: it does not change, and has no other fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Request(Body):
    """The body of a request: types are taken strictly."""

    model_config = ConfigDict(strict=True)
