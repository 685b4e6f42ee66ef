"""What layers need in sum and what the network needs, against captured operators and hand-made numbers."""

import math
from dataclasses import replace

import pytest
import torch
from networks.coverage import tokens
from transformers import LlamaConfig, LlamaForCausalLM

import statesize as ss
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.networks.page import page
from statesize.report.redundancy import ALONE, NEEDED, STORED, MixerNeeds, Redundancy
from statesize.spectra.spectrum import effective_rank


def model(pattern: str, **options: int) -> LanguageModel:
    config = ModelConfig(
        pattern, 12, **{"width": 8, "heads": 2, "layers": 2, "key_size": 2, "convolution_size": 1} | options
    )
    return LanguageModel(config, torch.Generator().manual_seed(0)).eval()


def found_of(held: torch.nn.Module, length: int, cut: int) -> Redundancy:
    ids = tokens(length)
    return ss.networks.redundancy(held, ids, ss.network_ess(held, ids, [cut], method="dense"), "small")


def test_parts_are_the_entropies_of_the_operators_over_all_channels() -> None:
    held, ids, cut = model("gla,sa"), tokens(20), 9
    found = found_of(held, 20, cut)
    assert [mixer.kind for mixer in found.mixers] == ["gla", "sa"]
    for mixer, item in zip(found.mixers, ss.capture(held, ids), strict=True):
        blocks = item.operator.dense()[0, :, cut:, :cut].double()
        exact = float(effective_rank(torch.linalg.svdvals(blocks)).sum()) * item.multiplicity
        assert mixer.needed[0] == pytest.approx(exact, rel=2e-3)
        assert mixer.alone == mixer.needed
        assert mixer.state_bytes == item.state_bytes
    # Two heads of four value channels: states of 2 keys, and a cache of all tokens.
    assert [mixer.stored[0] for mixer in found.mixers] == [16, 8 * cut]


def test_the_number_is_the_sum_of_the_parts_over_the_whole_where_the_text_is_long_enough() -> None:
    held = model("gla")
    long, short = found_of(held, 16, 8), found_of(held, 16, 3)
    assert long.stored[0] == 32 < long.dimension[0] == 64
    assert long.values[0] == pytest.approx(long.needed[0] / long.whole[0])
    assert long.reason(0) == ""
    assert short.dimension[0] == 24
    assert math.isnan(short.values[0])
    assert short.reason(0) == (
        "The redundancy cannot be told at 3: the states can hold 32 numbers, and the text before or after the cut "
        "allows 24, so the text is the limit of what passes, not the layers. Take a text of about 5 tokens or more on "
        "both sides of the cut."
    )
    assert found_of(held, 10, 5).reason(0) == ""


@pytest.mark.parametrize(("mixer", "compares"), [("sa", False), ("gla", True)])
def test_layers_are_not_summed_up_where_no_text_tells_a_redundancy(mixer: str, compares: bool) -> None:
    held, ids = model(mixer), tokens(8)
    result = ss.network_ess(held, ids, [3], method="dense")
    layers, _ = page("small", result, ss.networks.redundancy(held, ids, result)).tables
    assert [row[0] for row in layers.rows if row[0] in ("all layers", "network")] == [
        "all layers",
        "network",
    ] * compares
    assert ("(redundancy)" in layers.caption) == compares


def test_no_longer_text_is_advised_where_the_caches_grow_with_it() -> None:
    assert (
        found_of(model("sa"), 16, 8)
        .reason(0)
        .endswith("A longer text does not help, because the caches grow with the text.")
    )
    # One cache beside a state leaves room for what the state can hold.
    assert made(dimension=(50,)).reason(0).endswith("Take a text of about 10 tokens or more on both sides of the cut.")
    mixers = tuple(replace(mixer, grows=mixer.kind == "attention") for mixer in made().mixers)
    assert (
        made(dimension=(50,), mixers=mixers)
        .reason(0)
        .endswith("Take a text of about 17 tokens or more on both sides of the cut.")
    )


class Pointwise(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(8, 8)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.inner(hidden)


def test_a_layer_that_mixes_no_positions_is_no_mixer_that_is_missing() -> None:
    held = model("gla")
    alone = found_of(held, 16, 8)
    held.layers.append(Pointwise().eval())
    assert ss.capture(held, tokens(16)).skipped.keys() == {"layers.2"}
    found = found_of(held, 16, 8)
    assert found.skipped == {}
    assert found.needed == alone.needed
    assert found.values[0] == pytest.approx(found.needed[0] / found.whole[0])


def test_short_convolutions_count() -> None:
    held, cut = model("gla", convolution_size=3), 8
    found = found_of(held, 16, cut)
    mixer = found.mixers[-1]
    assert [one.kind for one in found.mixers] == ["gla", "gla", "short convolution", "short convolution"]
    # Queries, keys, values and decays of both heads; the last tap is the present token.
    weight = held.layers[1].mixer.convolution.weight.detach().double()
    T = sum(weight[:, 2 - lag, None, None] * torch.diag(torch.ones(16 - lag), -lag) for lag in range(3))
    exact = float(effective_rank(torch.linalg.svdvals(T[:, cut:, :cut].double())).sum())
    assert mixer.needed[0] == pytest.approx(exact, rel=2e-3)
    assert mixer.stored[0] == 2 * len(weight)
    assert mixer.state_bytes == 4 * 2 * len(weight)
    # The mixer's own cache holds both, which are counted once.
    captured = ss.capture(held, torch.zeros(1, 16, dtype=torch.int64))
    assert sum(one.state_bytes for one in found.mixers) == sum(item.state_bytes for item in captured)


def test_what_heads_share_is_stored_once() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=12, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=4,
            num_key_value_heads=2,
        )  # fmt: skip
        held = LlamaForCausalLM(config).eval()
    (mixer,) = found_of(held, 12, 6).mixers
    # Two key-value heads of four channels, read by four heads.
    assert mixer.stored[0] == 2 * 4 * 6
    assert mixer.needed[0] < mixer.alone[0]


def made(**changes: object) -> Redundancy:
    mixers = (
        MixerNeeds("layers.0.mixer", "attention", 512, (40.0,), (12.0,), (30.0,)),
        MixerNeeds("layers.1.mixer", "gla", 256, (20.0,), (6.0,), (6.0,)),
    )
    given = {
        "model": "m",
        "length": 16,
        "positions": (8,),
        "dimension": (64,),
        "whole": (9.0,),
        "interval": ((8.5, 9.5),),
    }
    return Redundancy(**given | {"mixers": mixers, "skipped": {}} | changes)


def test_the_chart_has_layers_their_sum_and_the_network() -> None:
    chart = made().plot().to_dict()
    rows = {(row["part"], row["group"]): row["numbers"] for row in chart["datasets"]["parts"]}
    assert rows == {
        ("0", STORED): 40, ("0", ALONE): 30, ("0", NEEDED): 12, ("1", STORED): 20, ("1", NEEDED): 6,
        ("all layers", STORED): 60, ("all layers", NEEDED): 18, ("network", NEEDED): 9,
    }  # fmt: skip
    assert chart["layer"][0]["encoding"]["color"]["scale"]["domain"] == [STORED, ALONE, NEEDED]
    assert made().plot(paper=True).to_dict()["layer"]


def test_nothing_is_said_where_a_mixer_is_missing() -> None:
    found = made(skipped={"layers.2.mixer": "unknown"})
    assert math.isnan(found.values[0])
    assert found.reason(0) == "The redundancy cannot be told: these mixers were not measured: layers.2.mixer."


def test_documents_keep_everything() -> None:
    found = made()
    assert Redundancy.from_dict(found.to_dict()) == found
    assert found.to_dict()["values"] == [2.0]
    assert made(dimension=(50,)).to_dict()["values"] == [None]
