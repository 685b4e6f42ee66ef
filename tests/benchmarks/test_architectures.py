"""The architectures that are compared are of one size, and train as transformers means it."""

import pytest
import torch

from benchmarks.architectures.scan import quick_scan
from benchmarks.architectures.shapes import ARCHITECTURES


@pytest.fixture(scope="module")
def models():
    return {architecture.folder: architecture.build() for architecture in ARCHITECTURES}


def test_sizes_are_equal_within_five_percent(models):
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in models.values()]
    assert len(sizes) == len(ARCHITECTURES) == 9
    middle = sum(sizes) / len(sizes)
    assert 1_000_000 <= middle <= 3_000_000
    assert max(abs(size / middle - 1) for size in sizes) < 0.05


def test_the_quick_scan_is_the_one_of_transformers_with_its_gradient(models):
    model, ids = models["mamba"], torch.arange(48).view(2, 24)

    def run():
        model.zero_grad()
        logits = model(input_ids=ids, use_cache=False).logits
        logits.square().mean().backward()
        return logits.detach(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    expected = run()
    with quick_scan():
        found = run()
    for mine, theirs in zip(found, expected, strict=True):
        assert not torch.equal(mine, theirs)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


def test_the_delta_rule_does_not_forget_within_a_token(models):
    biases = [value for name, value in models["gated-delta-rule"].named_parameters() if name.endswith("dt_bias")]
    steps = torch.nn.functional.softplus(torch.cat(biases).detach())
    assert len(biases) == 4
    assert 0.001 <= float(steps.min()) <= float(steps.max()) <= 0.1
