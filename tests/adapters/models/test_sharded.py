"""Models of several ranks: the first one reads what is read of the whole model, and the training is as without."""

import re

import pytest
import torch
from oracles import rank_work
from oracles.rank_work import on_ranks

POLICIES = (None, torch.bfloat16)
FAMILIES = ("llama", "mamba2", "qwen3_next", "gla")


@pytest.mark.parametrize(
    ("family", "policy"),
    [
        pytest.param(family, policy, marks=() if (family, policy) == ("llama", None) else pytest.mark.slow)
        for family in FAMILIES
        for policy in POLICIES
    ],
)
def test_the_first_rank_reads_what_the_whole_model_gives(family, policy):
    said, other = on_ranks(rank_work.readings, family, policy)
    assert other == {"first": False}
    assert said["first"]
    assert said["equal"] == [True, True]
    assert said["precision"] == (["bfloat16", "bfloat16"] if policy else ["float32", "float32"])


@pytest.mark.parametrize(
    ("how", "family", "policy"),
    [
        ("sharded", "llama", None),
        ("replicated", "llama", None),
        *(
            pytest.param("sharded", family, policy, marks=pytest.mark.slow)
            for family, policy in (("llama", torch.bfloat16), ("mamba2", None))
        ),
    ],
)
def test_weights_after_five_steps_are_those_without_readings(how, family, policy):
    for rank, said in enumerate(on_ranks(rank_work.trained, how, family, policy)):
        assert said == {"read": [rank == 0] * 5, "losses": True, "weights": True}


@pytest.mark.parametrize("how", ["sharded", pytest.param("replicated", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("fault", "raised", "cause"),
    [
        ("text", "InputError: The model refused sequence 0 of 99 tokens", "The model refused sequence 0 of 99 tokens"),
        pytest.param("own", "ZeroDivisionError: not mine", "ZeroDivisionError: not mine", marks=pytest.mark.slow),
        ("interrupt", "KeyboardInterrupt: ", "KeyboardInterrupt: "),
    ],
)
def test_what_fails_on_the_first_rank_is_an_error_on_all_and_training_goes_on(how, fault, raised, cause):
    (error, *rest), (other, *same_rest) = on_ranks(rank_work.failing, how, fault)
    assert error.startswith(raised)
    assert other.startswith(f"StatesizeError: The first rank did not measure the model: {cause}")
    assert (rest, same_rest) == ([True, True], [False, True])


SHARED_OUT = r"ModelError: model must be whole in this process, got \w+, which fully_shard has shared out among ranks\."


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("fsdp1", r"ModelError: model must be sharded by fully_shard \(FSDP2\), got FullySharded"),
        ("parallel", r"ModelError: Parameter model\.layers\.0\.self_attn\.q_proj\.weight must be whole where its"),
        ("zero", r"ModelError: Parameter model\.embed_tokens\.weight must be whole where its layer runs, got one that"),
        ("pipeline", r"InputError: model must be a torch module, got PipelineStage"),
        ("profile", SHARED_OUT),
    ],
)
def test_what_is_not_whole_is_refused_by_name(how, error):
    for said in on_ranks(rank_work.refused, how):
        assert re.match(error, said)
