"""The tables of a profile's quantities: columns of tables and documents, and arrays of mixers."""

from __future__ import annotations

from statesize.results import fields as known
from tools.figures.on_record import table


def fields() -> dict[str, str]:
    """A row for each column, and for each array."""
    dims = known.array_dims("head")
    columns = [
        (f"`{field.name}`", field.line, field.unit, ", ".join(field.tables), field.meaning)
        for field in known.FIELDS
        if field.tables
    ]
    arrays = [
        # A column of tables has its meaning there.
        (f"`{name}`", ", ".join(dims[name]), field.unit, "" if field.tables else field.meaning)
        for name, field in known.arrays().items()
    ]
    return {
        "columns": table(("name", "column", "unit", "tables", "meaning"), columns),
        "arrays": table(("variable", "dims", "unit", "meaning"), arrays),
    }
