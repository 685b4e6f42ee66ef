"""Models of fla cut and compared with whole ones that read projections: `python fla_cut.py KIND FOLDER`, one JSON line.

fla's kernels run in Triton's interpreter (TRITON_INTERPRET=1), over few tokens.
"""

from __future__ import annotations

import json
import sys
import warnings

import torch
from transformers import PreTrainedTokenizerFast

import statesize as ss
from statesize.lab import zoo
from statesize.reduction.hub import FAMILIES, bases_of_groups, gramians_of_groups

DOCUMENTS = [f"document {number} says {number * number} and no more of {number}" for number in range(50)]
SHAPE = {"vocab_size": 1024, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 2, "fuse_norm": False}
SHAPE |= {"fuse_swiglu": False, "fuse_cross_entropy": False}


def made(kind: str):
    """A small model of random weights, whose heads have 16 numbers."""
    from fla.models import GatedDeltaNetConfig, GatedDeltaNetForCausalLM, GLAConfig, GLAForCausalLM

    torch.manual_seed(0)
    if kind == "gated_deltanet":
        return GatedDeltaNetForCausalLM(GatedDeltaNetConfig(head_dim=16, expand_v=1, **SHAPE)).eval()
    settings = {"expand_k": 1.0, "expand_v": 1.0, "use_short_conv": kind == "gla-conv"}
    model = GLAForCausalLM(GLAConfig(**settings, **SHAPE)).eval()
    for name, weight in model.named_parameters():
        if "conv1d" in name:
            weight.data.normal_()
        if "v_proj" in name:
            # What is added to squares by the norm of the outputs is then little beside them.
            weight.data *= 1e4
    return model


@torch.no_grad()
def main(kind: str, folder: str) -> None:
    """Cut to 4 of 16 numbers, save, load and generate."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    model, ids = made(kind), torch.randint(1024, (1, 24), generator=torch.Generator().manual_seed(1))
    family = FAMILIES[model.config.model_type]
    (basis,) = family.bases(model.config)
    bases = bases_of_groups(gramians_of_groups(model, [ids]), basis)
    cut = family.smaller(model, bases, 4)
    projecting = family.smaller(model, bases, 16)
    for name in bases:
        layer, small = projecting.get_submodule(name), cut.get_submodule(name)
        if kind == "gated_deltanet":
            layer.basis.data = small.basis @ small.basis.mT
        elif kind == "gla":
            # Numbers that are not kept are not read, and the others as the cut reads them.
            read = torch.zeros_like(layer.q_proj.weight.view(2, 16, -1))
            read[:, :4] = small.q_proj.weight.view(2, 4, -1) * 2
            layer.q_proj.weight.data = read.flatten(0, 1)
        else:
            layer.q_proj.weight.data.view(2, 16, -1)[:, 4:] = 0
    logits, whole = cut(ids).logits, model(ids).logits
    # Queries that pass silu cannot take in the root of their size, which the norm of the output takes out.
    found = {"projected": float((logits - projecting(ids).logits).abs().max() / whole.abs().max())}
    found["whole"] = float((logits - whole).abs().max() / whole.abs().max())
    found["unchanged"] = float((family.smaller(model, bases, 16)(ids).logits - whole).abs().max() / whole.abs().max())
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=zoo.tokenizer(), **{"eos_token": "<eos>"})
    compressed = ss.compress(model, DOCUMENTS, "25%", length=32, tokenizer=tokenizer)
    found |= {"bytes": compressed.state_bytes, "method": compressed.method}
    compressed.save(folder)
    read, _ = ss.load(folder)
    found["kind"] = type(read).__name__
    found["loaded"] = float((read(ids).logits - compressed.model(ids).logits).abs().max())
    stepped, cache = [], None
    for token in ids.T:
        output = read(token[:, None], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        stepped.append(output.logits[:, 0])
    found["stepped"] = float((torch.stack(stepped, 1) - read(ids).logits).abs().max() / whole.abs().max())
    found["tss"] = int(
        ss.profile(read, ids, positions=4, on_progress=lambda _: None).to_dataframe()["state_size"].max()
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
