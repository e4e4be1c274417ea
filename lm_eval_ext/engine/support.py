"""Whether a model can attend over shared prompts, found out by trying."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from lm_eval_ext.engine.private_cache import PrivateCache
from lm_eval_ext.engine.prompt_layout import PromptCache, SharedPrefix
from lm_eval_ext.engine.shared_prefix import forward, prefill, shared_prefix_mode

# Masks of other kinds (chunks, blocks) may differ from ours only beyond the length of the probe.
_KNOWN_LAYER_TYPES = {"full_attention", "sliding_attention"}

# Root mean square difference of the logits from a plain forward pass, as a share of their spread.
# In half precision two implementations of the same attention differ by a few hundredths.
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3}
_TOLERANCE_HALF_PRECISION = 0.1


@torch.inference_mode()
def misfit(model: PreTrainedModel) -> str | None:
    """Return why the shared-prefix attention does not fit a model ("has ..."), or None.

    A probe decides: a few tokens through the mechanism and through the plain model must give the
    same logits. Architectures that ignore, replace or extend the attention function fail it.
    """
    config = model.config.get_text_config()
    if getattr(model.config, "is_encoder_decoder", False):
        return "is an encoder-decoder"
    if not getattr(model, "_supports_attention_backend", False):
        return "does not take attention functions from transformers' registry"
    unknown = set(getattr(config, "layer_types", None) or ()) - _KNOWN_LAYER_TYPES
    if unknown:
        return f"has layers of type {', '.join(sorted(unknown))}"
    if getattr(config, "num_kv_shared_layers", 0):
        return "shares keys and values between layers"
    try:
        difference = _probe(model, config.vocab_size)
    except Exception as error:  # any failure means the same thing: use the fallback
        first_line = str(error).partition("\n")[0]
        return f"fails with shared prompts ({type(error).__name__}: {first_line})"
    if not difference <= _TOLERANCE.get(model.dtype, _TOLERANCE_HALF_PRECISION):
        return f"gives other logits with shared prompts (off by {difference:.2g} of their spread)"
    return None


def _probe(model: PreTrainedModel, vocab_size: int) -> float:
    """Return the RMS difference from the plain model over the spread of the logits."""
    generator = torch.Generator().manual_seed(0)
    spans = torch.randint(vocab_size, (4, 5), generator=generator).tolist()
    own = torch.randint(vocab_size, (5, 3), generator=generator)
    # Span 1 follows span 0, span 2 follows span 1: rows on trees of depth 1 to 3.
    above = [None, 0, 1, None]
    span_of_row = [0, 3, 1, 2, 0]
    device = model.device
    expected = [
        model(torch.tensor([_path(above, spans, end) + row.tolist()]).to(device), use_cache=False)
        for end, row in zip(span_of_row, own, strict=True)
    ]
    plain = torch.cat([output.logits[:, -3:] for output in expected]).float()
    with shared_prefix_mode(model):
        caches: list[PromptCache] = []
        for span, parent in zip(spans, above, strict=True):
            caches += prefill(model, [span], [None if parent is None else caches[parent]])
        prefix = SharedPrefix(caches, span_of_row)
        cache = PrivateCache([0] * len(own))
        first = forward(model, own[:, :2].to(device), prefix=prefix, cache=cache)
        last = forward(model, own[:, 2:].to(device), prefix=prefix, cache=cache)
    shared = torch.cat([first, last], dim=1).float()
    return float((shared - plain).square().mean().sqrt() / plain.std())


def _path(above: list[int | None], spans: list[list[int]], end: int | None) -> list[int]:
    """Return the tokens from the root to the end of a span."""
    return [] if end is None else _path(above, spans, above[end]) + spans[end]
