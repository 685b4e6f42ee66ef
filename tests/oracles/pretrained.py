"""A tiny model of transformers with a tokenizer of its own, as a folder."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = "The state of a model is what its past leaves to its future."

TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}</s>{% endfor %}"
"""A chat template: each message is followed by </s>."""


def tiny_tokenizer(*, eos: bool = True, bos: bool = False, template: str | None = None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    words = {"special_tokens": ["<s>", "</s>"], "initial_alphabet": sorted(pre_tokenizers.ByteLevel.alphabet())}
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False, **words)
    tokenizer.train_from_iterator([TEXT], trainer=trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    names = ({"eos_token": "</s>"} if eos else {}) | ({"bos_token": "<s>"} if bos else {})
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **names)


def tiny_llama():
    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 32, "max_position_embeddings": 256}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(**sizes)).eval()


def save_tiny(folder, *, dtype=torch.float32, **tokenizer):
    tiny_llama().to(dtype).save_pretrained(folder)
    tiny_tokenizer(**tokenizer).save_pretrained(folder)
    return folder
