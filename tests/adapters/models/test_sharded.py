"""Models that fully_shard has shared out among ranks: what is read of them is what is read of the whole model."""

import pytest
import torch
from oracles import rank_work
from oracles.ranks import on_ranks

POLICIES = (None, torch.bfloat16)
FAMILIES = ("llama", "mamba2", "qwen3_next", "gla", "own")


@pytest.mark.slow  # SHARES has layers of such a model
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("policy", POLICIES)
def test_each_rank_reads_what_the_whole_model_gives_and_trains_as_without(family, policy):
    for said in on_ranks(rank_work.readings, family, policy):
        assert (said["profile"], said["probe"]) == ([], [])
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
    ("what", "name"),
    [
        ("texts", "inputs and settings"),
        pytest.param("fewer", "inputs and settings", marks=pytest.mark.slow),
        ("heads", "model"),
    ],
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
            pytest.param(
                how,
                "ModelError: model must be whole in this process to be cut or made smaller, got one on ranks 0, 1.",
                marks=() if how == "truncate" else pytest.mark.slow,
            )
            for how in ("truncate", "cache")
        ),
        ("pipeline", "ModelError: model must hold all of its layers, got PipelineStage, which runs those of this rank"),
        ("output", "InputError: output must be None for a model on ranks 0, 1, got 'nowhere'. Each has the profile"),
        ("executor", "InputError: executor must be None for a model on ranks 0, 1, got RayCluster("),
    ],
)
def test_what_is_shared_out_otherwise_is_refused_by_name(how, error):
    for said in on_ranks(rank_work.refused, how):
        assert said.startswith(error)


SHARES = [
    ("sharded", "llama", {}),
    ("replicated", "llama", {}),
    # What its layers mix is asked of them again while one rank measures it.
    pytest.param("sharded", "gla", {"weights": "values"}, marks=pytest.mark.slow),
    pytest.param("sharded", "own", {}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("how", "family", "options"), SHARES)
def test_each_layer_is_measured_on_one_rank_and_known_on_all(how, family, options):
    (first, mixers, different), (second, same_mixers, also_different) = on_ranks(rank_work.shares, how, family, options)
    assert (different, also_different) == ([], [])
    assert mixers == same_mixers
    # Two texts; the groups of a layer are measured with its heads.
    assert sorted(name for name in first + second if not name.endswith("#shared")) == sorted(2 * mixers)
    assert set(first).isdisjoint(second)
    assert first
    assert second


@pytest.mark.parametrize("how", ["sharded", pytest.param("replicated", marks=pytest.mark.slow)])
def test_what_one_rank_raises_over_its_share_is_raised_on_all_and_training_goes_on(how):
    first, second = on_ranks(rank_work.failing, how, "input")
    assert first == second
    error, interrupted, in_time, later, _ = first
    assert error == "InputError: too few tokens"
    assert (interrupted, in_time, later) == (False, True, "")


@pytest.mark.parametrize("fault", ["interrupt", pytest.param("waiting", marks=pytest.mark.slow)])
def test_ctrl_c_on_one_rank_is_an_error_on_the_others_and_training_goes_on(fault):
    first, second = on_ranks(rank_work.failing, "sharded", fault)
    stopped, other = (second, first) if fault == "interrupt" else (first, second)
    assert stopped[:4] == ["", True, True, ""]
    assert other[0].endswith(f"got KeyboardInterrupt on rank {int(stopped is second)}. Its own output says where.")
    assert other[1:4] == [False, True, ""]
    assert stopped[4] == other[4]


@pytest.mark.parametrize("how", ["sharded", pytest.param("replicated", marks=pytest.mark.slow)])
def test_the_others_say_that_a_rank_has_ended_over_its_share(how):
    (error, in_time), dead = on_ranks(rank_work.failing, how, "death")
    assert dead is None
    assert in_time
    assert error.startswith(
        "RankError: All ranks that hold the model must run until it is measured, got one that has ended ("
    )


@pytest.mark.parametrize("what", ["numbers", "order", "configuration"])
def test_replicas_that_differ_or_do_not_come_are_told(what):
    (different, alone), (also_different,) = on_ranks(rank_work.other_replicas, what)
    assert different == also_different
    assert different.startswith("RankError: model must be the same on all ranks that hold the model")
    assert "got no call on rank 1 within 2 s" in alone


def test_a_model_that_ddp_holds_is_read_on_one_rank():
    assert on_ranks(rank_work.replicated) == [[], []]


def test_the_buffers_of_the_first_replica_count():
    (alone, shared, kept), (other, also_shared, also_kept) = on_ranks(rank_work.other_buffers)
    assert alone != other
    assert shared == also_shared == alone
    assert kept
    assert also_kept
