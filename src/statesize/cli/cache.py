"""`statesize cache`: what the cache of a model may lose, and the price."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, validators

from statesize.cli.shared.options import MOST, Loading, model_for, options_of, share
from statesize.cli.shared.printing import REPORTING, Reporting
from statesize.cli.shared.texts import LongTexts, check_all
from statesize.measurement.settings import FEWEST_PIECES, FOLLOWING, LEAST_PREFIX


def cache(
    model: Annotated[str, model_for("cache")],
    /,
    *,
    texts: LongTexts | None = None,
    keep: str = "25%",
    rule: Literal["expected", "snapkv", "h2o", "streaming"] = "expected",
    passkeys: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=MOST))] = 12,
    ratios: Path | None = None,
    loading: Loading | None = None,
    printing: Reporting = REPORTING,
) -> None:
    """Price a smaller cache: keys and values are rounded, tokens evicted, or both, and the next tokens are predicted.

    The model is one of transformers with a cache of keys and values, such as SmolLM2. Bundled models (sa, la, gla,
    gated-deltanet) keep no such cache and are refused. Texts are read in pieces of --max-tokens, at least 96, and 36 of
    them unless --sequences, at least 6, says otherwise. In a third of the pieces, each layer's error is measured as its
    caches keep fewer tokens. A sixth chooses between budgets by these curves and equal ones. The rest gives the prices.
    A text of fewer than 6 pieces serves one of these alone.

    Args:
        model: A folder of a model, a GGUF file, or an id of the Hugging Face hub.
        texts: What the model reads.
        keep: Share of the tokens that is tried beside 50, 25 and 12.5 %.
        rule: Which tokens are kept: expected attention, SnapKV, H2O, or the first and the last ones (streaming).
        passkeys: Numbers that are hidden in the texts and asked for; 0 for none.
        ratios: File .npy for the shares that budgets by curves evict, at 1 to 99 %, (99, layers, caches of a layer),
            which LU-KV in kvpress loads.
        loading: How the model is loaded.
        printing: What is printed.

    Raises:
        InputError: Pieces are too short.
    """
    from statesize.io.files import check_report_path

    texts, loading, least = texts or LongTexts(), loading or Loading(), FOLLOWING + LEAST_PREFIX
    wrong = list[str]()
    if ratios is not None and ratios.suffix != ".npy":
        wrong.append(f"ratios must be a file .npy, got {ratios}. Give a name that ends so.")
    if texts.max_tokens < least:
        wrong.append(
            f"max_tokens must be at least {least}, got {texts.max_tokens}: a piece is a context of {LEAST_PREFIX} "
            f"tokens or more, and {FOLLOWING} that are read from its cache. Give {least}."
        )
    if (texts.sequences or FEWEST_PIECES) < FEWEST_PIECES:
        wrong.append(
            f"sequences must be at least {FEWEST_PIECES}, got {texts.sequences}: a third measures curves, a sixth "
            f"chooses budgets, and half are priced. Give {FEWEST_PIECES}."
        )
    place = [] if ratios is None else [partial(check_report_path, ratios, "ratios")]
    named = partial(printing.named, f"{Path(model).name}-cache")
    kept, printing, *_ = check_all(partial(share, "keep", keep), named, texts.check, *place, *wrong)

    from statesize.cli.shared.table import show_page
    from statesize.measurement.statistics import FEWEST_TEXTS
    from statesize.reduction.cache.page import page, short_table
    from statesize.reduction.cache.price import DOCUMENTS
    from statesize.reduction.cache.price import cache as run
    from statesize.reduction.cache.sets import three_sets
    from statesize.texts.documents import vocabulary_size

    printing.hush_libraries()
    documents = texts.sequences or DOCUMENTS
    loaded = texts.load(model, loading, printing)
    inputs = texts.read_whole(loaded.tokenizer, printing, vocabulary_size(loaded.model))
    held_out = three_sets(inputs, texts.max_tokens, MOST, loaded.tokenizer, least=least)[-1]
    reached, size = len({text for text, _ in held_out}), texts.max_tokens
    twice = f"{2 * FEWEST_TEXTS} of {size} or more, of which half are held out"
    texts.tell_few(reached, f"held-out texts of {FEWEST_PIECES * size} tokens or more, or {twice}", printing)
    options: dict[str, Any] = {
        "keep": kept,
        "rule": rule,
        "documents": documents,
        "tokens": texts.max_tokens,
        "needles": passkeys,
        "tokenizer": loaded.tokenizer,
        "name": loaded.name,
    }
    with printing.bars() as bars:
        update = bars.begin(f"pricing the cache of {loaded.name}").update
        result = run(loaded.model, inputs, on_progress=update, **options)
    if ratios is not None:
        result.save_pruned_shares(ratios)
        printing.say(f"Ratios: {ratios}")
    short = short_table(result) if result.little_text and reached < FEWEST_TEXTS else None
    show_page(page(result), result.to_dict(), printing, short)
    if result.little_text:
        longer = not result.context_matters
        texts.tell_more(inputs, documents, reached, printing, longer=longer, least=FEWEST_PIECES)
    else:
        printing.next("truncate", model, *options_of(texts, loading), why="how few numbers would suffice at all")
