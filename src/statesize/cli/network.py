"""`statesize network`: the ESS of a whole model over one text."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, validators

from statesize.check import refuse
from statesize.cli.shared.options import (
    MAX_TOKENS,
    Count,
    Flag,
    Loading,
    ModelName,
    options_of,
)
from statesize.cli.shared.printing import REPORTING, Reporting
from statesize.cli.shared.texts import FewTokens
from statesize.errors import InputError
from statesize.io.progress import Bar, duration, say
from statesize.io.text import counted

if TYPE_CHECKING:
    from statesize.networks.network import NetworkProgress

_CHEAPER = "Smaller --max-tokens and --positions, and a larger --accuracy such as 0.2, take less."


def network(
    model: ModelName,
    /,
    *,
    texts: FewTokens | None = None,
    positions: Count = 1,
    start: str | None = None,
    end: str | None = None,
    accuracy: Annotated[float, Parameter(validator=validators.Number(gt=0, lt=1))] = 0.1,
    method: Literal["auto", "lanczos", "dense"] = "auto",
    memory: str = "2GB",
    precision: Literal["double", "single"] = "double",
    by_layer: Flag = False,
    plan: Flag = False,
    loading: Loading | None = None,
    printing: Reporting = REPORTING,
) -> None:
    """Measure how much a whole model carries from the past of a text into its future, all layers together.

    It measures the entropy-ESS of the Jacobian from past embeddings to future hidden states, over one text. More tokens
    take longer. What is normal is on record of the bundled models over 344 tokens (--max-tokens 344).

    Args:
        model: A bundled name (sa, la, gla, gated-deltanet), a folder of a model, a GGUF file, or an id of the Hugging
            Face hub.
        texts: What the model reads.
        positions: Number of cuts, in the middles of equal parts; each takes as long as the others.
        start: Name of the module whose output before a cut is varied. Default: the token embeddings.
        end: Name of the module whose output from a cut on is read. Default: what the last norm takes.
        accuracy: Half-width of the interval to reach, relative to the entropy-ESS (0.1 = 10 %); half of it takes
            twice the time.
        method: lanczos multiplies with the Jacobian, dense forms it, auto chooses the cheaper.
        memory: Memory that measuring may use beside the model and its activations, such as 4GB.
        precision: single multiplies in float32, about twice as fast, and widens the interval by the rounding error.
        by_layer: Also measure each layer at these cuts, and compare the sum over layers with the whole network.
        plan: Only print how many products and how much time each cut would take, estimated from a few.
        loading: How the model is loaded.
        printing: What is printed.

    Raises:
        InputError: More than one text is asked for.
    """
    from statesize.measurement.settings import Settings, memory_bytes

    texts, loading = texts or FewTokens(), loading or Loading()
    texts.check()
    for name, count in (("sequences", texts.sequences or 1), ("text", len(texts.text or ()))):
        if count > 1:
            raise InputError(f"{name} must be one text, because a network is measured over one, got {count}.")
    printing = printing.named(f"{Path(model).name}-network")
    settings = Settings(positions=positions, memory=memory_bytes(memory))

    from statesize.adapters.select import NothingMeasuredError
    from statesize.cli.shared.provenance import called_again, called_with
    from statesize.cli.shared.summary import show_plan
    from statesize.cli.shared.table import show_page
    from statesize.networks.network import network_ess
    from statesize.networks.page import FILLED, ON_RECORD, RECORDED, page
    from statesize.networks.plan import network_plan
    from statesize.networks.redundancy import redundancy
    from statesize.texts.documents import vocabulary_size

    printing.hush_libraries()
    loaded = texts.load(model, loading, printing)
    found = texts.read(loaded.tokenizer, printing, vocabulary_size(loaded.model))
    read = found.ids
    if len(read) > 1:
        printing.say(f"Reading the first of {len(read)} texts, because a network is measured over one.")
    if positions >= len(read[0]):
        tokens = len(read[0])
        refuse("positions", f"at most {tokens - 1}, the cuts of the {tokens} tokens that are read", positions)
    compares = model in ON_RECORD and start is end is None and positions % 2 == 1 and len(read[0]) < RECORDED
    compares = compares and (found.lengths is None or found.lengths[0] >= RECORDED)
    head = {"model": loaded.name, "tokens": len(read[0])}
    options: dict[str, Any] = {"start": start, "end": end, "accuracy": accuracy, "method": method}
    options |= {"precision": precision, "settings": settings}
    if plan:
        with printing.step(f"trying {loaded.name}"):
            planned = network_plan(loaded.model, read[0][None], **options)
        show_plan({"model": loaded.name}, planned, printing)
        return
    with printing.bars() as bars:
        bar = bars.begin(f"measuring {loaded.name}")
        result = network_ess(loaded.model, read[0][None], on_progress=_telling(bar), **options)
    beside = None
    if by_layer:
        try:
            with printing.step("measuring the layers"):
                beside = redundancy(loaded.model, read[0][None], result, loaded.name)
        except NothingMeasuredError as error:
            say(f"No layer was measured: {error}")
    document = head | result.to_dict() | ({} if beside is None else {"redundancy": beside.to_dict()})
    show_page(page(loaded.name, result, beside), document, printing)
    if compares:
        why = f"measures again, over the {RECORDED} tokens of the numbers on record, and says what is normal"
        printing.next(*called_with({MAX_TOKENS[0]: RECORDED}), why=why)
    elif not by_layer and model in FILLED and len(read[0]) >= RECORDED:
        printing.next(*called_again("--by-layer"), why="whether layers keep what others keep")
    else:
        printing.next("profile", model, *options_of(texts, loading), "--open", why="the heads of each layer")


def _telling(bar: Bar) -> Callable[[NetworkProgress], None]:
    """The time that is left follows from the products that each interval is likely to need; a first note tells it."""
    started, told = time.monotonic(), False

    def report_progress(progress: NetworkProgress) -> None:
        nonlocal told
        known = progress.low > 1
        found = f"{progress.low:,.0f} to {progress.high:,.0f} numbers by " if known else ""
        detail = f"cut {progress.position}, {found}{progress.products:,} of about {counted(progress.likely, 'product')}"
        done, total = progress.place * progress.likely + progress.products, progress.positions * progress.likely
        if not told and done:
            told = True
            seconds = (time.monotonic() - started) * total / done
            bar.note(f"about {duration(seconds)} in all, at the speed of just now. {_CHEAPER}")
        bar.update(done, total, detail)

    return report_progress
