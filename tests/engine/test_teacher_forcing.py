"""Logits along given continuations equal those of a plain forward pass."""

import pytest
import torch

from lm_eval_ext.engine.teacher_forcing import teacher_forced_logits


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("max_rows", [3, 64])
def test_logits_equal_a_plain_pass_over_embeddings(random_model, make_requests, name, max_rows):
    model = random_model(name)
    requests = make_requests(5, 3, vectors=True)
    draws = torch.Generator().manual_seed(0)
    continuations = [
        torch.randint(5, 90, (1 + i % 6,), generator=draws).tolist() for i in range(len(requests))
    ]
    results = teacher_forced_logits(model, requests, continuations, max_rows=max_rows)
    embed = model.get_input_embeddings()
    with torch.inference_mode():
        for request, continuation, logits in zip(requests, continuations, results, strict=True):
            parts = [embed(torch.tensor(request.shared_ids, dtype=torch.int64))]
            if request.vectors is not None:
                parts.append(request.vectors.draw())
            parts.append(embed(torch.tensor([*request.private_ids, *continuation])))
            whole = model(inputs_embeds=torch.cat(parts)[None], use_cache=False).logits[0]
            expected = whole[-len(continuation) - 1 : -1]
            torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)
