"""`statesize truncate`: is a memory of the size of ESS enough?"""

from __future__ import annotations

from pathlib import Path

from statesize.check import require_count
from statesize.cli.shared.options import Loading, ModelName, Output, share
from statesize.cli.shared.printing import REPORTING, Reporting, hush_libraries
from statesize.cli.shared.texts import Texts, fitting_tokens
from statesize.io.progress import Bar
from statesize.measurement.settings import LEAST_TOKENS


def truncate(
    model: ModelName,
    /,
    *,
    texts: Texts | None = None,
    at: str = "1%",
    loading: Loading | None = None,
    output: Output = None,
    printing: Reporting = REPORTING,
) -> None:
    """Test whether ESS suffices: cut all layers to multiples of their ESS, and measure how far predictions change.

    It reads 12 pieces of --max-tokens (or --sequences of them; shorter ones where no text is so long) and cuts each in
    the middle. With hindsight the size is about the least memory that is needed; beside it stands what choices need
    that know only the past.

    Args:
        model: A bundled name (sa, la, gla, gated-deltanet), a folder of a model, a GGUF file, or an id of the Hugging
            Face hub.
        texts: What the model reads.
        at: Changes of the predictions count as nothing lost up to this share of what the whole context changes.
        loading: How the model is loaded.
        output: JSON file for the result; what is finished is kept beside it, and the same command goes on from there.
        printing: What is printed.
    """
    texts, loading = texts or Texts(), loading or Loading()
    require_count("max_tokens", texts.max_tokens, least=LEAST_TOKENS)
    negligible, printing = share("at", at), printing.named(f"{Path(model).name}-truncate")

    from statesize.cli.shared.printing import show_page
    from statesize.texts.documents import vocabulary_size
    from statesize.truncation.truncate import DOCUMENTS
    from statesize.truncation.truncate import truncate as run

    hush_libraries()
    loaded = texts.load(model, loading)
    inputs = texts.read_whole(loaded.tokenizer, vocabulary_size(loaded.model))
    size = fitting_tokens([*map(len, inputs)], texts.max_tokens, LEAST_TOKENS)
    with Bar(f"cutting {loaded.name}") as bar:
        result = run(
            loaded.model, inputs, documents=texts.sequences or DOCUMENTS, tokens=size, at=negligible,
            tokenizer=loaded.tokenizer, name=loaded.name, output=output, on_progress=bar.update,
        )  # fmt: skip
    show_page(result.page(), result.to_dict(), printing)
