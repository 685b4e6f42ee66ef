"""What a report says of its layers in words."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from statesize.results.diagnosis import diagnose
from statesize.results.protocol import Profiled


def diagnosis_section(profiles: Sequence[Profiled]) -> str:
    """How much of its state each layer uses, as HTML."""
    models = "".join(_model(profile) for profile in profiles)
    return (
        f'<div class="diagnosis">{models}<p>Means over the cuts where the layer’s own size is what limits it: at least '
        "as many tokens before and after as its state has numbers, or the middle half of the text for attention, which "
        "keeps every token. They say what is used on this text. Whether more would help depends on the task.</p></div>"
    )


def _model(profile: Profiled) -> str:
    items = "".join(f"<li>{escape(str(item))}</li>" for item in diagnose(profile)) or "<li>Nothing was measured.</li>"
    return f"<p><strong>{escape(profile.model)}</strong></p><ul>{items}</ul>"
