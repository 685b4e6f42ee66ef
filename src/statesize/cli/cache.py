"""`statesize cache`: what the cache of a model may lose, and the price."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from statesize.check import require_count
from statesize.cli.shared.options import Loading, Output, model_for, share
from statesize.cli.shared.printing import REPORTING, Reporting, hush_libraries
from statesize.cli.shared.texts import Texts, fitting_tokens
from statesize.io.progress import Bar
from statesize.measurement.settings import FEWEST_PIECES, FOLLOWING, LEAST_PREFIX


def cache(
    model: Annotated[str, model_for("cache")],
    /,
    *,
    texts: Texts | None = None,
    keep: str = "25%",
    loading: Loading | None = None,
    output: Output = None,
    printing: Reporting = REPORTING,
) -> None:
    """Price a smaller cache: keys and values are rounded, tokens evicted, or both, and the next tokens are predicted.

    The model is one of transformers with a cache of keys and values, such as SmolLM2. Bundled models (sa, la, gla,
    gated-deltanet) keep no such cache and are refused. Texts are read in pieces of --max-tokens, at least 96 (shorter
    ones where texts are too short), and 12 of them unless --sequences, at least 6, says otherwise. Every third text, or
    the first third of a single one, shows how each layer errs as its caches keep fewer tokens, those that expected
    attention reads most. The others give prices, also of the latest tokens.

    Args:
        model: A folder of a model, a GGUF file, or an id of the Hugging Face hub.
        texts: What the model reads.
        keep: Share of the tokens that is tried beside 50, 25 and 12.5 %.
        loading: How the model is loaded.
        output: JSON file for the result; what is finished is kept beside it, and the same command goes on from there.
        printing: What is printed.
    """
    texts, loading = texts or Texts(), loading or Loading()
    kept, printing = share("keep", keep), printing.named(f"{Path(model).name}-cache")
    require_count("max_tokens", texts.max_tokens, least=FOLLOWING + LEAST_PREFIX)
    require_count("sequences", texts.sequences or FEWEST_PIECES, least=FEWEST_PIECES)

    from statesize.cli.shared.printing import show_page
    from statesize.texts.documents import vocabulary_size
    from statesize.truncation.cache import DOCUMENTS
    from statesize.truncation.cache import cache as run
    from statesize.truncation.run import LEAST_PIECES

    hush_libraries()
    loaded = texts.load(model, loading)
    inputs = texts.read_whole(loaded.tokenizer, vocabulary_size(loaded.model))
    lengths = [len(ids) // (LEAST_PIECES if len(inputs) == 1 else 1) for ids in inputs]
    size = fitting_tokens(lengths, texts.max_tokens, FOLLOWING + LEAST_PREFIX)
    with Bar(f"pricing the cache of {loaded.name}") as bar:
        result = run(
            loaded.model, inputs, keep=kept, documents=texts.sequences or DOCUMENTS, tokens=size,
            tokenizer=loaded.tokenizer, name=loaded.name, output=output, on_progress=bar.update,
        )  # fmt: skip
    show_page(result.page(), result.to_dict(), printing)
