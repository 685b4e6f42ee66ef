"""The schema of what commands print with --json."""

import json
from pathlib import Path

import jsonschema

from statesize import cli

SCHEMA = json.loads((Path(cli.__file__).parent / "documents.schema.json").read_text(encoding="utf-8"))


def closed(part):
    """The schema, without leave for fields that it does not name."""
    if isinstance(part, list):
        return [closed(item) for item in part]
    if not isinstance(part, dict):
        return part
    found = {name: closed(value) for name, value in part.items()}
    return {"additionalProperties": False, **found} if "properties" in part else found


def assert_document(name, document):
    """Hold a document to the definition of this name; one that has more fields is not documented."""
    jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": closed(SCHEMA["$defs"])}).validate(document)
