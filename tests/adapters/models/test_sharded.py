"""Models that fully_shard has shared out among ranks: what is read of them is what is read of the whole model."""

import pytest
import torch
from oracles import rank_work
from oracles.ranks import on_ranks

POLICIES = (None, torch.bfloat16)
SLOW = ("mamba2", "qwen3_next", "gla", "own")


@pytest.mark.parametrize(
    ("family", "policy"),
    [
        *(("llama", policy) for policy in POLICIES),
        *(pytest.param(family, policy, marks=pytest.mark.slow) for family in SLOW for policy in POLICIES),
    ],
)
def test_each_rank_reads_what_the_whole_model_gives_and_trains_as_without(family, policy):
    for said in on_ranks(rank_work.readings, family, policy):
        assert (said["profile"], said["probe"]) == ([], [])
        assert said["plan"][0] == said["plan"][1]
        assert said["losses"]
        assert said["precision"] == (["bfloat16, weights float32", "bfloat16"] if policy else ["float32", "float32"])


def test_a_call_on_one_rank_alone_is_an_error_and_no_hang():
    (errors, together, losses), (_, also, others) = on_ranks(rank_work.lonely)
    assert len(errors) == 2
    for error in errors:
        assert error.startswith(
            "RankError: All ranks that hold the model (0, 1) must measure it together, got no call on rank 1 within 2 s"
        )
    assert together == also == ""
    assert losses == others


@pytest.mark.parametrize(
    ("what", "name"), [("texts", "inputs and settings"), ("fewer", "inputs and settings"), ("heads", "model")]
)
def test_ranks_that_measure_something_else_are_told_and_training_goes_on(what, name):
    first, last = on_ranks(rank_work.different, what)
    assert first == last
    assert first[0] == (
        f"RankError: {name} must be the same on all ranks that hold the model, got others on rank 1 than on rank 0. "
        "Give each rank the same."
    )
    assert first[1] == ""


def test_the_others_say_that_a_rank_has_ended():
    error, dead = on_ranks(rank_work.dying)
    assert dead is None
    assert error.startswith(
        "RankError: All ranks that hold the model must run until it is measured, got one that has ended ("
    )


def test_training_goes_on_after_a_text_that_the_model_cannot_run():
    for error, as_without in on_ranks(rank_work.too_long):
        assert error.startswith("InputError: The model refused sequence 0 of 99 tokens")
        assert as_without


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("fsdp1", "ModelError: model.layers.0 must be sharded by fully_shard (FSDP2), got FullyShardedDataParallel"),
        ("parallel", "ModelError: Parameter model.layers.0.self_attn.q_proj.weight must be whole where its layer runs"),
        ("inner", "ModelError: Parameter embed_tokens.weight must be whole where its layer runs, got a DTensor"),
        ("zero", "ModelError: Parameter model.embed_tokens.weight must be whole where its layer runs, got one that Z"),
        *(
            (how, "ModelError: model must be whole in this process to be cut or made smaller, got one on ranks 0, 1.")
            for how in ("truncate", "cache", "compress")
        ),
        ("pipeline", "ModelError: model must hold all of its layers, got PipelineStage, which runs those of this rank"),
        ("output", "InputError: output and executor must be None for a model on ranks 0, 1, got 'nowhere'."),
    ],
)
def test_what_is_shared_out_otherwise_is_refused_by_name(how, error):
    for said in on_ranks(rank_work.refused, how):
        assert said.startswith(error)


def test_a_model_that_ddp_holds_is_read_on_one_rank():
    assert on_ranks(rank_work.replicated) == [[], []]
