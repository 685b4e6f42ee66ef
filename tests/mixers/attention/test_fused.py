"""The choice between plain torch and fused kernels; on a CPU it is always plain torch."""

import torch

from statesize.mixers.attention.chunk import mix_chunked
from statesize.mixers.attention.fused import mix


def test_without_a_gpu_it_is_the_plain_form():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 40, 4, generator=generator) for _ in range(3))
    for log_decay in (None, -torch.rand(1, 2, 40, 4, generator=generator)):
        assert torch.equal(mix(query, key, value, log_decay), mix_chunked(query, key, value, log_decay))
