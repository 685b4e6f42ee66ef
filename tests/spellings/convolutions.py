"""Causal convolutions and recurrences of single channels."""

import torch
from spellings.projections import WIDTH
from torch import nn
from torch.nn import functional as F


def toeplitz(kernel, sequences, length):
    """T[i, j] = h_{i−j} of each channel, (S, channel, L, L), of a kernel (channel, K)."""
    kernel = F.pad(kernel, (0, max(0, length - kernel.shape[-1])))
    lag = torch.arange(length)[:, None] - torch.arange(length)
    return torch.where(lag >= 0, kernel[:, lag.clamp_min(0)], 0.0).expand(sequences, -1, -1, -1)


class Convolved(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.output = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.convolution = nn.Conv1d(WIDTH, WIDTH, 4, groups=WIDTH)

    def definition(self, hidden):
        return toeplitz(self.convolution.weight[:, 0].flip(-1), *hidden.shape[:2])


class PaddedLeft(Convolved):
    def forward(self, hidden):
        return self.output(self.convolution(F.pad(self.enter(hidden).mT, (3, 0))).mT)


class PaddedAndCut(Convolved):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(WIDTH, WIDTH, 4, groups=WIDTH, padding=3)

    def forward(self, hidden):
        return self.output(self.convolution(self.enter(hidden).transpose(1, 2))[..., : hidden.shape[1]].transpose(1, 2))


class ConvolvedInput(Convolved):
    """No projection before it: what enters the layer is convolved."""

    def forward(self, hidden):
        return F.gelu(self.convolution(F.pad(hidden.mT, (3, 0))).mT)


class LongConvolution(Convolved):
    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(WIDTH, 64) * 0.3)

    def definition(self, hidden):
        return toeplitz(self.kernel[:, : hidden.shape[1]], *hidden.shape[:2])

    def forward(self, hidden):
        length = hidden.shape[1]
        spectrum = torch.fft.rfft(self.enter(hidden).mT, n=2 * length)
        kernel = torch.fft.rfft(self.kernel[:, :length], n=2 * length)
        return self.output(torch.fft.irfft(spectrum * kernel, n=2 * length)[..., :length].mT)


class Hyena(LongConvolution):
    """q · conv(k · v), linear in k and in v: T is that of k, which is computed first, and v belongs to it."""

    def __init__(self):
        super().__init__()
        self.gates = nn.Linear(WIDTH, 2 * WIDTH)

    def definition(self, hidden):
        return super().definition(hidden) * self.enter(hidden).mT[:, :, None]

    def forward(self, hidden):
        query, key = self.gates(hidden).chunk(2, -1)
        value, length = (key * self.enter(hidden)).mT, hidden.shape[1]
        spectrum = torch.fft.rfft(value, n=2 * length) * torch.fft.rfft(self.kernel[:, :length], n=2 * length)
        return self.output(query * torch.fft.irfft(spectrum, n=2 * length)[..., :length].mT)


class TokenShift(nn.Module):
    def __init__(self):
        super().__init__()
        self.share, self.output = nn.Parameter(torch.rand(WIDTH)), nn.Linear(WIDTH, WIDTH)

    def definition(self, hidden):
        return toeplitz(torch.stack([1 - self.share, self.share], -1), *hidden.shape[:2])

    def forward(self, hidden):
        before = F.pad(hidden, (0, 0, 1, 0))[:, :-1]
        return self.output(torch.lerp(hidden, before, self.share)).relu()


class MovingAverage(nn.Module):
    """A loop over positions that writes into a buffer; a gate follows."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.linspace(0, 3, WIDTH))
        self.enter, self.gate, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def definition(self, hidden):
        rate = self.rate.sigmoid()[:, None]
        return toeplitz((1 - rate) * rate ** torch.arange(hidden.shape[1]), *hidden.shape[:2])

    def forward(self, hidden):
        entering, rate = self.enter(hidden), self.rate.sigmoid()
        state, mixed = torch.zeros_like(entering[:, 0]), torch.zeros_like(entering)
        for step in range(hidden.shape[1]):
            state = rate * state + (1 - rate) * entering[:, step]
            mixed[:, step] = state
        return self.output(mixed * F.silu(self.gate(hidden)))


class SelectiveScan(nn.Module):
    """Mamba's recurrence, in a loop, with its short convolution before and D beside."""

    def __init__(self, states=4):
        super().__init__()
        self.enter, self.output = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.convolution = nn.Conv1d(WIDTH, WIDTH, 4, groups=WIDTH, padding=3)
        self.select, self.step = nn.Linear(WIDTH, 2 * states), nn.Linear(WIDTH, WIDTH)
        self.log_rate = nn.Parameter(torch.arange(1, states + 1).float().log().repeat(WIDTH, 1))
        self.skip = nn.Parameter(torch.ones(WIDTH))

    def parts(self, hidden):
        entering, gate = self.enter(hidden).chunk(2, -1)
        entering = F.silu(self.convolution(entering.mT)[..., : hidden.shape[1]].mT)
        step = F.softplus(self.step(entering))
        decay = torch.exp(-step[..., None] * self.log_rate.exp())
        return entering, gate, step, decay, *self.select(entering).chunk(2, -1)

    def definition(self, hidden):
        _, _, step, decay, before, behind = self.parts(hidden)
        passed = decay.log().cumsum(1)
        passed = (passed[:, :, None] - passed[:, None]).exp()
        maps = torch.einsum("bin,bijcn,bjn,bjc->bcij", behind, passed, before, step).tril()
        return maps + torch.diag_embed(self.skip[None, :, None].expand(len(hidden), -1, hidden.shape[1]))

    def forward(self, hidden):
        entering, gate, step, decay, before, behind = self.parts(hidden)
        state, outputs = 0, []
        for at in range(hidden.shape[1]):
            state = decay[:, at] * state + (step[:, at] * entering[:, at])[..., None] * before[:, at, None]
            outputs.append((state * behind[:, at, None]).sum(-1))
        mixed = torch.stack(outputs, 1) + self.skip * entering
        return self.output(mixed * F.silu(gate))


class DiagonalStateSpace(LongConvolution):
    """S4D: a kernel of complex exponentials, and D beside."""

    def __init__(self, states=4):
        super().__init__()
        self.poles = nn.Parameter(torch.randn(WIDTH, states, 2) * 0.3)
        self.weights = nn.Parameter(torch.randn(WIDTH, states))

    def kernel_of(self, length):
        poles = torch.complex(-self.poles[..., 0].exp(), self.poles[..., 1] * 3)
        return (self.weights[..., None] * torch.exp(poles[..., None] * torch.arange(length))).real.sum(1)

    def definition(self, hidden):
        return toeplitz(self.kernel_of(hidden.shape[1]), *hidden.shape[:2])

    def forward(self, hidden):
        length = hidden.shape[1]
        kernel = torch.fft.rfft(self.kernel_of(length), n=2 * length)
        mixed = torch.fft.irfft(torch.fft.rfft(self.enter(hidden).mT, n=2 * length) * kernel, n=2 * length)
        return self.output(F.gelu(mixed[..., :length].mT))


class MinimalGate(nn.Module):
    """h_t = (1 − z_t) h_{t−1} + z_t v_t, in a parallel form by logarithms; T acts on z_t, which is computed first."""

    def __init__(self):
        super().__init__()
        self.update, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def definition(self, hidden):
        update = self.update(hidden).sigmoid()
        passed = (1 - update).log().cumsum(1).mT
        return (passed[..., :, None] - passed[..., None, :]).exp().tril() * self.value(hidden).mT[..., None, :]

    def forward(self, hidden):
        update = self.update(hidden).sigmoid()
        passed = F.logsigmoid(-self.update(hidden)).cumsum(1)
        return self.output(passed.exp() * (self.value(hidden) * update * (-passed).exp()).cumsum(1))


SPELLINGS = (
    PaddedLeft,
    PaddedAndCut,
    ConvolvedInput,
    LongConvolution,
    Hyena,
    TokenShift,
    MovingAverage,
    SelectiveScan,
    DiagonalStateSpace,
    MinimalGate,
)
