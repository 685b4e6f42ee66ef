"""The laboratory: small models, and what training them tells of the measure."""
