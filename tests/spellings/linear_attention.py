"""Linear attention and the delta rule, in parallel forms and in loops."""

import torch
from spellings.projections import HEADS, WIDTH, Projected
from torch import nn
from torch.nn import functional as F


class Quadratic(Projected):
    def definition(self, hidden):
        query, key, _ = self.heads(hidden)
        return (query @ key.mT).tril()

    def forward(self, hidden):
        query, key, value = self.heads(hidden)
        return self.joined((query @ key.mT).tril() @ value)


class StateByCumsum(Projected):
    definition = Quadratic.definition

    def forward(self, hidden):
        query, key, value = self.heads(hidden)
        states = torch.einsum("bhld,bhle->bhlde", key, value).cumsum(2)
        return self.joined(torch.einsum("bhld,bhlde->bhle", query, states))


class Normalised(Projected):
    def features(self, hidden):
        query, key, value = self.heads(hidden)
        return F.elu(query) + 1, F.elu(key) + 1, value

    def definition(self, hidden):
        query, key, _ = self.features(hidden)
        weights = (query @ key.mT).tril()
        return weights / weights.sum(-1, keepdim=True)

    def forward(self, hidden):
        query, key, value = self.features(hidden)
        states = torch.cumsum(key.unsqueeze(-1) * value.unsqueeze(-2), 2)
        norm = (query * key.cumsum(2)).sum(-1, keepdim=True)
        return self.joined((query.unsqueeze(-2) @ states).squeeze(-2) / norm)


class RetentionLoop(Projected):
    rates = (0.9, 0.8, 0.5)

    def definition(self, hidden):
        query, key, _ = self.heads(hidden)
        steps = torch.arange(hidden.shape[1])
        decay = torch.tensor(self.rates)[:, None, None] ** (steps[:, None] - steps).clamp_min(0)
        return (query @ key.mT * decay).tril()

    def forward(self, hidden):
        query, key, value = self.heads(hidden)
        rates = torch.tensor(self.rates)[:, None, None]
        state, outputs = 0, []
        for step in range(hidden.shape[1]):
            state = rates * state + key[:, :, step, :, None] * value[:, :, step, None, :]
            outputs.append((query[:, :, step, None, :] @ state).squeeze(-2))
        return self.joined(torch.stack(outputs, 2))


class GatedLoop(Projected):
    """Gated linear attention, into a buffer."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(WIDTH, WIDTH)

    def decay(self, hidden):
        return (self.gate(hidden) + 2).sigmoid().unflatten(-1, (HEADS, -1)).transpose(1, 2)

    def definition(self, hidden):
        query, key, _ = self.heads(hidden)
        passed = self.decay(hidden).log().cumsum(2)
        return torch.einsum(
            "bhid,bhjd,bhijd->bhij", query, key, (passed[:, :, :, None] - passed[:, :, None]).exp()
        ).tril()

    def forward(self, hidden):
        query, key, value = self.heads(hidden)
        decay, mixed = self.decay(hidden), torch.empty_like(value)
        state = value.new_zeros(*value.shape[:2], key.shape[-1], value.shape[-1])
        for step in range(hidden.shape[1]):
            state = state * decay[:, :, step, :, None] + torch.einsum(
                "bhd,bhe->bhde", key[:, :, step], value[:, :, step]
            )
            mixed[:, :, step] = torch.einsum("bhd,bhde->bhe", query[:, :, step], state)
        return self.joined(mixed)


class Chunked(Projected):
    definition = Quadratic.definition

    def forward(self, hidden):
        query, key, value = self.heads(hidden)
        state, mixed = 0, []
        for start in range(0, hidden.shape[1], 8):
            q, k, v = (part[:, :, start : start + 8] for part in (query, key, value))
            mixed.append((q @ k.mT).tril() @ v + q @ state if start else (q @ k.mT).tril() @ v)
            state = state + k.mT @ v
        return self.joined(torch.cat(mixed, 2))


class DeltaRule(Projected):
    def definition(self, hidden):
        query, key, _ = self.heads(hidden)
        key, length = F.normalize(key, dim=-1), hidden.shape[1]
        columns = []
        for column in range(length):
            impulse = torch.zeros(length).scatter(0, torch.tensor(column), 1.0)
            state, response = torch.zeros_like(key[:, :, 0]), []
            for step in range(length):
                error = impulse[step] - (state * key[:, :, step]).sum(-1, keepdim=True)
                state = state + 0.5 * error * key[:, :, step]
                response.append((state * query[:, :, step]).sum(-1))
            columns.append(torch.stack(response, -1))
        return torch.stack(columns, -1)

    def forward(self, hidden):
        query, key, value = self.heads(hidden)
        key = F.normalize(key, dim=-1)
        state = hidden.new_zeros(*key.shape[:2], key.shape[-1], value.shape[-1])
        outputs = []
        for q, k, v in zip(query.unbind(2), key.unbind(2), value.unbind(2), strict=True):
            recalled = torch.einsum("bhd,bhde->bhe", k, state)
            state = state + 0.5 * torch.einsum("bhd,bhe->bhde", k, v - recalled)
            outputs.append(torch.einsum("bhd,bhde->bhe", q, state))
        return self.joined(torch.stack(outputs, 2))


class CumulativeMean(nn.Module):
    def __init__(self):
        super().__init__()
        self.value, self.output = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def definition(self, hidden):
        length = hidden.shape[1]
        mean = torch.ones(length, length).tril() / torch.arange(1, length + 1)[:, None]
        return mean.expand(len(hidden), 1, -1, -1)

    def forward(self, hidden):
        count = torch.arange(1, hidden.shape[1] + 1, device=hidden.device)[:, None]
        return self.output(self.value(hidden).cumsum(1) / count)


SPELLINGS = (
    Quadratic,
    StateByCumsum,
    Normalised,
    RetentionLoop,
    GatedLoop,
    Chunked,
    DeltaRule,
    CumulativeMean,
)
