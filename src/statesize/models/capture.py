"""`statesize.capture`: the operators of a model, which may be named, one mixer at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from statesize.adapters.capture import Capture, Request, capture_module
from statesize.adapters.check import Checks
from statesize.adapters.forward import Inputs
from statesize.adapters.models.quantised import measurable
from statesize.adapters.select import Layers
from statesize.io.devices import on_cpu_by_default
from statesize.models.load import given_sequence


@on_cpu_by_default
def capture(
    model: nn.Module | str,
    input_ids: Inputs | str | Path,
    layers: Layers = None,
    *,
    checks: Checks = "all",
    mixes: Mapping[str, str] | None = None,
    axis: int | None = None,
) -> Capture:
    """Run a model and yield the operator of each of its mixers, one at a time.

    The model runs at once, in eval mode, without gradients or cache: observed, to find its mixers; with hooks that only
    read; and with nothing attached. The last hidden states of the three must be the same. When the iterator reaches a
    mixer, that module alone is called again, its operator is taken, and output and operator are compared with what the
    unaltered model computed. A mixer that fails goes into `skipped` with its reason.

    Between the steps, and when a call returns or raises, the model is as before: mode, hooks, weights, dtype and random
    state. Its weights must not change while the iterator is in use. One operator is alive at a time.

    Args:
        model: A causal model, or the name of one, as for `statesize.profile`.
        input_ids: What the model's forward takes: token ids (S, L), frames (S, L, W), or a mapping. The positions of an
            encoder–decoder are those of its `decoder_input_ids`, those of another mapping without `input_ids` or
            `inputs_embeds` those of its first argument. For a model by its name also a text, or a Path of one.
        layers: Mixers to capture, by index or module name, one or several; None takes all. A module's name means all
            of its calls, and "NAME@1" its second.
        checks: "all"; "read" leaves out the run with nothing attached, for further inputs of a model that has passed
            it; "again" compares a model that has passed both, and may have changed, with its own runs over other
            futures alone, and with all if these differ; "none" leaves out all, and the comparison of a declared T.
        mixes: For layers of one's own whose T is found by impulses, on what it acts: by name of the layer, or a pattern
            such as "blocks.*.attention", the name of the part inside whose output is mixed. By default it is found.
        axis: The dimension of positions in what is measured. Default: 1, or what the modules say that take frames of
            three dimensions, such as 2 before a Conv1d.

    Returns:
        An iterator of Captured, in the order in which the model calls its mixers.

    Raises:
        InputError: For padding, a cache, a text of less than 2 tokens, and `layers` that are not there.
        ModelError: It has no known mixer, or its observed run is not that of the unaltered model.
        NothingMeasuredError: No selected mixer can be measured; it is a ModelError.
    """
    given, input_ids = given_sequence(model, input_ids)
    model = measurable(given)
    return capture_module(model, input_ids, Request(layers, checks, mixes or {}, axis))
