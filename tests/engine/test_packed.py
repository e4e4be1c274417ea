"""Packed teacher forcing equals a plain forward pass over each attempt by itself."""

import pytest
import torch

from lm_eval_ext.engine.packed import (
    ForcedAttempt,
    PackedAttempts,
    packed_logits,
    packed_misfit,
    packed_mode,
    plain_logits,
)
from lm_eval_ext.methods.epistemic.weight_perturbation import WeightPerturbation


def attempts():
    draws = torch.Generator().manual_seed(0)

    def ids(n):
        return tuple(torch.randint(5, 700, (n,), generator=draws).tolist())

    prompts = [ids(n) for n in (7, 20, 1, 13)]
    return [
        ForcedAttempt(prompts[i], ids(n)) for i, n in [(0, 3), (0, 17), (1, 1), (2, 9), (3, 30)]
    ]


@torch.inference_mode()
def plain(model, attempt):
    tokens = torch.tensor([[*attempt.prompt_ids, *attempt.response_ids]])
    return model(input_ids=tokens, use_cache=False).logits[0, len(attempt.prompt_ids) - 1 : -1]


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "gpt_neox", "mistral", "granite"])
@torch.inference_mode()
def test_packed_equals_plain(random_model, name):
    model = random_model(name)
    expected = torch.cat([plain(model, attempt) for attempt in attempts()])
    with packed_mode(model):
        ours = packed_logits(model, PackedAttempts(attempts()))
    torch.testing.assert_close(ours, expected, atol=2e-3, rtol=1e-3)
    assert torch.equal(plain(model, attempts()[0]), expected[:3])  # the model is as before


def attempts_that_begin_alike():
    draws = torch.Generator().manual_seed(1)

    def ids(n):
        return tuple(torch.randint(5, 700, (n,), generator=draws).tolist())

    common = ids(40)
    prompts = [common + ids(n) for n in (7, 1, 20, 0)]  # one and the last add a token and none
    return [
        ForcedAttempt(prompts[i], ids(n)) for i, n in [(0, 3), (0, 17), (1, 1), (2, 9), (3, 30)]
    ]


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "gpt_neox", "mistral", "granite"])
@torch.inference_mode()
def test_what_prompts_have_in_common_is_read_once(random_model, name):
    model, chosen = random_model(name), attempts_that_begin_alike()
    expected = torch.cat([plain(model, attempt) for attempt in chosen])
    packed = PackedAttempts(chosen)
    n_own = sum(len(prompt) - 1 - 39 for prompt in {a.prompt_ids for a in chosen})
    assert packed.token_ids.shape[1] == 39 + n_own + packed.n_response_tokens
    with packed_mode(model):
        ours = packed_logits(model, packed)
    torch.testing.assert_close(ours, expected, atol=2e-3, rtol=1e-3)


@torch.inference_mode()
def test_streams_after_a_common_beginning(random_model):
    """Streams without noise all give the clean logits."""
    model, chosen = random_model("gemma3"), attempts_that_begin_alike()
    expected = torch.cat([plain(model, attempt) for attempt in chosen])
    packed = PackedAttempts(chosen, n_streams=3)
    with packed_mode(model):
        for stream in packed_logits(model, packed).split(packed.n_response_tokens):
            torch.testing.assert_close(stream, expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["llama", "bloom", "mamba"])
@torch.inference_mode()
def test_padded_pass_gives_the_same_rows(random_model, name):
    model = random_model(name)
    expected = torch.cat([plain(model, attempt) for attempt in attempts()])
    torch.testing.assert_close(plain_logits(model, attempts()), expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt_neox"])
def test_fits(random_model, name):
    assert packed_misfit(random_model(name)) is None


@pytest.mark.parametrize("name", ["bloom", "gpt_oss", "mamba"])
def test_misfits_say_why(random_model, name):
    assert packed_misfit(random_model(name))


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@torch.inference_mode()
def test_noise_on_one_token_with_a_clean_context(random_model, name):
    """Further streams against decoding: a clean cache, then one noisy step for every token."""
    model = random_model(name)
    perturbation = WeightPerturbation(model, rank=2, sigma=0.5)
    packed = PackedAttempts(attempts(), n_streams=3)
    n_tokens, n_response = packed.token_ids.shape[1], packed.n_response_tokens
    draws = torch.Generator().manual_seed(3)
    xi = {
        module: torch.randn(1, n_tokens, 2, generator=draws) for module in perturbation.module_names
    }
    for noise in xi.values():
        noise[:, : n_tokens - 2 * n_response] = 0  # the prompts and the clean stream
    with packed_mode(model), perturbation.with_noise(xi):
        clean, *noisy = packed_logits(model, packed).split(n_response)
    expected = torch.cat([plain(model, attempt) for attempt in attempts()])
    torch.testing.assert_close(clean, expected, atol=2e-3, rtol=1e-3)
    at = n_tokens - 2 * n_response
    for stream in noisy:
        by_steps = []
        for attempt in attempts():
            ids = torch.tensor([[*attempt.prompt_ids, *attempt.response_ids]])
            for t in range(len(attempt.prompt_ids) - 1, ids.shape[1] - 1):
                cache = None
                if t:
                    cache = model(input_ids=ids[:, :t], use_cache=True).past_key_values
                step = {module: noise[:, at : at + 1] for module, noise in xi.items()}
                with perturbation.with_noise(step):
                    output = model(
                        input_ids=ids[:, t : t + 1],
                        position_ids=torch.tensor([[t]]),
                        past_key_values=cache,
                    )
                by_steps.append(output.logits[0, -1])
                at += 1
        torch.testing.assert_close(stream, torch.stack(by_steps), atol=2e-3, rtol=1e-3)
        assert (stream - clean).abs().max() > 0.1
