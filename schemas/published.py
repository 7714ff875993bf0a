"""The JSON Schemas of all messages, as files for readers of any kind: `make schemas` writes them from the models."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from schemas.facts import FACT_MODELS, FACTS_SCHEMA_VERSION, FactKey, RemovedFact
from schemas.messages import OUTBOX_SCHEMA_VERSION, OutboxKey, OutboxMessage

FOLDER = Path(__file__).parent / "json"
"""Where the files are, in the source and in the wheel."""

RELEASED = FOLDER / "released"
"""What they were in the last release: what is read and written today has to get on with these."""


def _named(version: str, models: dict[str, type[BaseModel]]) -> dict[str, tuple[str, type[BaseModel]]]:
    major = version.partition(".")[0]
    return {f"{name}.v{major}": (version, model) for name, model in models.items()}


MODELS = {
    **_named(OUTBOX_SCHEMA_VERSION, {"outbox.key": OutboxKey, "outbox": OutboxMessage}),
    **_named(FACTS_SCHEMA_VERSION, {"changelog.key": FactKey, "changelog.removed": RemovedFact}),
    **_named(FACTS_SCHEMA_VERSION, {f"changelog.{dataset}": model for dataset, model in FACT_MODELS.items()}),
}
"""What is published: version and model by the schema's name, which ends in the major version."""


def schemas() -> dict[str, dict[str, Any]]:
    """The schemas by name."""
    return {
        name: {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"urn:reporting-projector:schema:{name}",
            "x-schema-version": version,
            **model.model_json_schema(),
        }
        for name, (version, model) in MODELS.items()
    }


def write(folder: Path = FOLDER) -> None:
    """Writes all files anew, and removes those of messages that are no more."""
    files = {f"{name}.json": json.dumps(schema, indent=2) + "\n" for name, schema in schemas().items()}
    for path in folder.glob("*.json"):
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
