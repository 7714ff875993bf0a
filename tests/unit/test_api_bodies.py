"""What is said of a body that does not fit its model: our words for every fault, and never what was sent."""

from ipaddress import IPv4Address
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from backfill_api.bodies import explain

CANARY = "canary-5ecret"


class _Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: UUID | None = None


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")

    address: IPv4Address | None = None
    inner: list[_Inner] = []


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ('{"address": "canary-5ecret"}', "address is not valid"),
        ('{"inner": [{}, {"id": "canary-5ecret"}]}', "inner[1].id must be a UUID"),
        ('{"inner": [{"canary-5ecret": 1}]}', "a field is not known; known are address, inner"),
        ('{"canary-5ecret": canary-5ecret}', "it is not JSON: expected value at line 1 column 19"),
        ("[]", "must be an object"),
    ],
    ids=range(5),
)
def test_every_fault_has_words_of_ours(sent: str, told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        _Model.model_validate_json(sent)
    assert explain(refused.value, _Model) == told
