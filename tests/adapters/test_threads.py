"""Measuring beside other threads: other models run as ever, two measurements find what each finds alone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from oracles.tiny_families import tiny
from torch import nn

from statesize import capture
from statesize.adapters.replaced import meanings, replaced

IDS = token_ids(1)


def elsewhere(function):
    """What a function returns in another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def found(model):
    """Names, kinds and operators of a model's mixers."""
    with torch.no_grad():
        return [(item.name, item.kind, item.operator.dense()) for item in capture(model, IDS)]


def assert_same(one, other):
    assert [item[:2] for item in one] == [item[:2] for item in other]
    for (*_, first), (*_, second) in zip(one, other, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("family", "same"),
    [
        ("llama", False),
        ("mamba2", True),
        *(pytest.param(family, False, marks=pytest.mark.slow) for family in ("gptj", "qwen3_next", "lfm2")),
    ],
)
def test_two_captures_at_once_find_what_each_finds_alone(family, same):
    first = tiny(family)
    models = [first, first if same else tiny(family)]
    alone = [found(model) for model in models]
    begun = threading.Barrier(2)

    def again(model):
        begun.wait()
        return [found(model) for _ in range(2)]

    with ThreadPoolExecutor(2) as pool:
        for expected, results in zip(alone, pool.map(again, models), strict=True):
            for result in results:
                assert_same(result, expected)


class Watched(nn.Module):
    def __init__(self):
        super().__init__()
        self.model, self.seen = attention_model("llama"), []

    def forward(self, input_ids):
        attention = self.model.model.layers[0].self_attn
        self.seen.append((threading.current_thread().name, attention.training, attention.q_proj.weight.dtype))
        return self.model(input_ids).logits


def test_the_same_model_in_another_thread_waits_until_it_is_as_before():
    model, threads = Watched().to(torch.bfloat16).train(), []

    def call_it_elsewhere(*_):
        if threading.current_thread() is threading.main_thread():
            threads.append(threading.Thread(target=lambda: model(IDS), name="other"))
            threads[-1].start()
            threads[-1].join(0.1)
            assert threads[-1].is_alive()

    before = sorted(vars(model))
    with model.model.model.layers[0].self_attn.register_forward_hook(call_it_elsewhere):
        list(capture(model, IDS))
        for thread in threads:
            thread.join()
    others = [entry for entry in model.seen if entry[0] == "other"]
    assert others == [("other", True, torch.bfloat16)] * len(threads)
    assert sorted(vars(model)) == before


def test_names_are_replaced_in_one_thread():
    file = ModuleType("file")
    file.kernel = original = abs
    with replaced({(file, "kernel"): float}):
        with replaced({(file, "kernel"): repr}):
            assert file.kernel(-1) == "-1"
            assert elsewhere(lambda: file.kernel(-1)) == 1
        assert file.kernel(-1) == -1.0
        assert meanings(file)["kernel"] is float
        assert elsewhere(lambda: (file.kernel(-1), meanings(file)["kernel"](-1))) == (1, 1)
    assert file.kernel is original
