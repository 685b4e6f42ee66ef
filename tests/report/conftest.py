"""Profiles with tokens and names that try to break out of a page, and a browser without a network."""

import pytest
import torch
import xarray as xr
from report.visit import chromium
from tokenizers import Tokenizer, models, pre_tokenizers

from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.profiling import Profile, profile

WORDS = ("<script>alert(1)</script>", '"quoted"', "שלום", "&amp;", "</td>", "it's", "<!--", "word")
NAME = '<img src=x onerror="alert(1)">'
LONG = "<script>alert(1)</script>" * 400
"""A token of 10 kB."""


@pytest.fixture(scope="session")
def hostile_profile(tmp_path_factory):
    words = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="word"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<eos>"])
    config = ModelConfig(mixer="gla", vocabulary_size=len(WORDS) + 1, width=8, heads=2, layers=2, key_size=3)
    model = LanguageModel(config, torch.Generator().manual_seed(0))
    texts = [" ".join([*WORDS, "<eos>", *WORDS]), " ".join(WORDS)]
    output = tmp_path_factory.mktemp("hostile") / "profile"
    return profile(model, texts, tokenizer=tokenizer, name=NAME, relative_tolerances=(0.01,), output=output)


@pytest.fixture(scope="session")
def ladder_profile():
    """A profile with counts at many tolerances, three heads, and the strangest tokens."""
    config = ModelConfig(mixer="gla", vocabulary_size=8, width=9, heads=3, layers=2, key_size=2)
    model = LanguageModel(config, torch.Generator().manual_seed(0))
    name = '=cmd|"x",<b>'
    found = profile(model, torch.arange(40)[None] % 8, name=name, positions="all")
    tree = found.to_xarray()
    texts = tree["tokens"].values.astype(object)
    texts[0, :5] = [LONG, "\u202egnp.exe", "🧪", "\"'>", "\u2028</script><script>alert(2)</script>"]
    tree["tokens"] = xr.DataArray(texts.astype(str), dims=("sequence", "token"))
    special = tree["special"].values.copy()
    special[0, 20] = True
    tree["special"] = xr.DataArray(special, dims=("sequence", "token"))
    return Profile(tree)


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser
