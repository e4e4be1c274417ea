"""Architecture of the tiny model and its export as a shipped checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizer import MAX_POSITIONS

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

# Eight heads per layer on four key-value heads: enough heads to prune, one at a time or by group.
SIZE = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}


def build_model(
    tokenizer: PreTrainedTokenizerFast, size: dict[str, int] | None = None
) -> LlamaForCausalLM:
    """Return a freshly initialized `LlamaForCausalLM` for a tokenizer.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        Gives the vocabulary and the special token ids.
    size : dict, optional
        Widths and depths as in `SIZE`; entries not given keep the value there.

    Notes
    -----
    Initial weights depend on torch's global random state.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,
        attn_implementation="sdpa",
        **{**SIZE, **(size or {})},
    )
    return LlamaForCausalLM(config)


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: str | Path) -> int:
    """Write fp16 weights, configuration and tokenizer, and return their size in bytes.

    The folder loads with ``AutoModelForCausalLM`` and ``AutoTokenizer``. The model in memory is
    not changed. Every file is written beside its final name first, so that a reader never meets
    half a file.
    """
    import copy

    import torch
    from transformers import GenerationConfig

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    half = copy.deepcopy(model).to("cpu", torch.float16)
    # Half precision only saves space: by default the weights load, and compute, in fp32.
    half.config.dtype = torch.float32
    half.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    scratch = folder / f".writing-{os.getpid()}"
    half.save_pretrained(scratch)
    _declare_single_precision(scratch / "config.json")
    tokenizer.save_pretrained(scratch)
    total = 0
    for file in sorted(scratch.iterdir()):
        total += file.stat().st_size
        file.chmod(0o644)
        file.replace(folder / file.name)
    scratch.rmdir()
    return total


def _declare_single_precision(config_file: Path) -> None:
    """Let the weights, stored in half precision, be loaded in single.

    CPUs are slow in float16, and its rounding would make sampled texts depend on the batch.
    """
    config = json.loads(config_file.read_text())
    config["dtype"] = "float32"
    config_file.write_text(json.dumps(config, indent=2) + "\n")
