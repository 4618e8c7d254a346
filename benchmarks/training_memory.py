"""GPU memory that training a pretrained decoder takes: weights, what is trained, and a step of so many tokens.

    python benchmarks/training_memory.py
    python benchmarks/training_memory.py --pretrained path/to/llm --batch-tokens 4096 8192

An estimate (genrec/training/memory.py says what is counted), for any machine: no weights are read or made. Without --pretrained
the models are Qwen3's, whose sizes stand below as their configurations give them. There is nothing random in it. A line takes
about a minute of one CPU core.
"""

import argparse

from transformers import AutoConfig, PreTrainedConfig, Qwen3Config

from genrec.evaluation.evaluate import markdown_table
from genrec.models.config import ModelConfig
from genrec.training.memory import Memory, training_memory

# hidden size, feed-forward, layers, heads, heads of keys and values, embeddings tied to the output layer
QWEN3 = {
    "Qwen3-0.6B": (1024, 3072, 28, 16, 8, True),
    "Qwen3-1.7B": (2048, 6144, 28, 16, 8, True),
    "Qwen3-4B": (2560, 9728, 36, 32, 8, True),
    "Qwen3-8B": (4096, 12288, 36, 32, 8, False),
}
WAYS = {
    "LoRA": {"lora_rank": 16},
    "LoRA, 8 bits": {"lora_rank": 16, "quantization": "8bit"},
    "LoRA, 4 bits": {"lora_rank": 16, "quantization": "4bit"},
    "DoRA": {"lora_rank": 16, "dora": True},
    "all weights": {"lora_rank": 0},
}
CODES = 1024  # rows that the vocabulary grows by: 4 levels of 256
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", help="folder or hub name of a decoder, of which the configuration is read")
    parser.add_argument("--models", nargs="+", choices=list(QWEN3), default=list(QWEN3))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["LoRA", "LoRA, 4 bits", "all weights"])
    parser.add_argument("--batch-tokens", nargs="+", type=int, default=[2048, 8192], metavar="T")
    arguments = parser.parse_args()
    models = {arguments.pretrained: AutoConfig.from_pretrained(arguments.pretrained)} if arguments.pretrained else qwen3()
    models = {name: model for name, model in models.items() if arguments.pretrained or name in arguments.models}
    rows = [
        [name, way, *row(architecture, ModelConfig(pretrained=name, **WAYS[way]), arguments.batch_tokens)]  # type: ignore[arg-type]
        for name, architecture in models.items()
        for way in arguments.ways
    ]
    totals = [f"total, {tokens:,} tokens" for tokens in arguments.batch_tokens]
    header = ["model", "way", "weights", "gradients, AdamW", *totals]
    print(f"GiB; bf16, {CODES:,} new rows; in brackets with gradient checkpointing\n")
    print(markdown_table(header, rows))


def qwen3() -> dict[str, PreTrainedConfig]:
    return {
        name: Qwen3Config(
            vocab_size=151936, hidden_size=hidden, intermediate_size=feed_forward, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=key_heads, head_dim=128, tie_word_embeddings=tied,
        )
        for name, (hidden, feed_forward, layers, heads, key_heads, tied) in QWEN3.items()
    }  # fmt: skip


def row(architecture: PreTrainedConfig, config: ModelConfig, batch_tokens: list[int]) -> list[str]:
    def found(tokens: int, checkpointing: bool) -> Memory:
        return training_memory(architecture, config, CODES, tokens, checkpointing=checkpointing)

    steps = [(found(tokens, False), found(tokens, True)) for tokens in batch_tokens]
    first = steps[0][0]
    totals = [f"{plain.total / GIB:.1f} ({less.total / GIB:.1f})" for plain, less in steps]
    return [f"{first.weights / GIB:.1f}", f"{(first.gradients + first.optimiser) / GIB:.1f}", *totals]


if __name__ == "__main__":
    main()
