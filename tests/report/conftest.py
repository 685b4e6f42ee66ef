"""A profile with tokens and a name that try to break out of a page."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from statesize.mixers import LanguageModel, ModelConfig
from statesize.profiling import profile

WORDS = ("<script>alert(1)</script>", '"quoted"', "שלום", "&amp;", "</td>", "it's", "<!--", "word")
NAME = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="session")
def hostile_profile():
    words = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="word"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<eos>"])
    config = ModelConfig(mixer="gla", vocabulary_size=len(WORDS) + 1, width=8, heads=2, layers=2, key_size=3)
    model = LanguageModel(config, torch.Generator().manual_seed(0))
    texts = [" ".join([*WORDS, "<eos>", *WORDS]), " ".join(WORDS)]
    return profile(model, texts, tokenizer=tokenizer, name=NAME)
