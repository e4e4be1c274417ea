"""Attention over shared prompts equals the plain model's, whatever the layout of the batch."""

import pytest
import torch

from lm_eval_ext.engine.private_cache import PrivateCache
from lm_eval_ext.engine.shared_prefix import (
    ATTENTION_NAME,
    SharedPrefix,
    forward,
    prefill,
    shared_prefix_mode,
)

ARCHITECTURES = ("llama", "qwen3", "gemma3", "gpt_neox", "mistral", "granite")
# Prompts longer and shorter than the sliding window (12), one token, and none at all.
PROMPT_LENGTHS = (20, 7, 1, 0)
# Uneven rows per prompt, out of order; private inputs of several lengths.
PROMPT_OF_ROW = (0, 2, 0, 1, 3, 0, 1)
PRIVATE_LENGTHS = (3, 1, 2, 5, 4, 1, 3)
N_MORE = 9


@pytest.fixture(scope="module")
def sequences(tiny_tokenizer):
    draws = torch.Generator().manual_seed(0)

    def tokens(length):
        return torch.randint(5, len(tiny_tokenizer), (length,), generator=draws).tolist()

    prompts = [tokens(length) for length in PROMPT_LENGTHS]
    private = [tokens(length) for length in PRIVATE_LENGTHS]
    more = torch.tensor([tokens(N_MORE) for _ in PROMPT_OF_ROW])
    return prompts, private, more


@torch.inference_mode()
def plain_logits(model, sequences):
    prompts, private, more = sequences
    rows = []
    for row, prompt in enumerate(PROMPT_OF_ROW):
        ids = torch.tensor([prompts[prompt] + private[row] + more[row].tolist()])
        rows.append(model(ids, use_cache=False).logits[0, -N_MORE - 1 :])
    return torch.stack(rows)


@torch.inference_mode()
def shared_logits(model, sequences, *, chunk):
    prompts, private, more = sequences
    longest = max(PRIVATE_LENGTHS)
    padded = torch.tensor([[0] * (longest - len(ids)) + ids for ids in private])
    with shared_prefix_mode(model):
        prefix = SharedPrefix(prefill(model, prompts), PROMPT_OF_ROW)
        cache = PrivateCache([longest - length for length in PRIVATE_LENGTHS])
        parts = [forward(model, padded, prefix=prefix, cache=cache, logits_to_keep=1)]
        parts += [forward(model, ids, prefix=prefix, cache=cache) for ids in more.split(chunk, 1)]
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("chunk", [1, 4, N_MORE])
def test_logits_equal_the_plain_models(random_model, sequences, name, chunk):
    model = random_model(name)
    expected = plain_logits(model, sequences)
    actual = shared_logits(model, sequences, chunk=chunk)
    torch.testing.assert_close(actual, expected, atol=2e-4 * float(expected.std()), rtol=0)


def test_softcap_is_applied():
    """Gemma2's soft cap is the one transform of scores that SDPA cannot do, so it is done here."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, attn_logit_softcapping=0.5,
        attn_implementation="eager",
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data.mul_(3)
    ids = torch.randint(50, (1, 9))
    with torch.inference_mode():
        expected = model(ids, use_cache=False).logits[:, -3:]
        with shared_prefix_mode(model):
            prefix = SharedPrefix(prefill(model, [[]]), [0])
            actual = forward(model, ids, prefix=prefix, cache=PrivateCache([0]), logits_to_keep=3)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_rows_leave_and_join(random_model, sequences):
    """Dropping and appending rows of the private cache leaves the others as they were."""
    model = random_model("gemma3")
    prompts, private, more = sequences
    expected = plain_logits(model, sequences)[:, -1]
    with torch.inference_mode(), shared_prefix_mode(model):
        read = prefill(model, prompts)

        def start(rows, until):
            longest = max(PRIVATE_LENGTHS[row] for row in rows)
            cache = PrivateCache([longest - PRIVATE_LENGTHS[row] for row in rows])
            prefix = SharedPrefix(read, [PROMPT_OF_ROW[row] for row in rows])
            padded = [[0] * (longest - len(private[row])) + private[row] for row in rows]
            forward(model, torch.tensor(padded), prefix=prefix, cache=cache)
            if until:
                forward(model, more[rows, :until], prefix=prefix, cache=cache)
            return cache

        # Rows 0-3 are ahead by five tokens when row 1 leaves and rows 4-6 join.
        cache = start([0, 1, 2, 3], 5)
        cache.keep(torch.tensor([0, 2, 3]))
        late = start([4, 5, 6], 0)
        cache.append_rows(late)
        rows = [0, 2, 3, 4, 5, 6]
        done = [5, 5, 5, 0, 0, 0]
        prefix = SharedPrefix(read, [PROMPT_OF_ROW[row] for row in rows])
        last = {}
        for step in range(N_MORE):
            ids = torch.tensor(
                [
                    [int(more[row, min(n + step, N_MORE - 1)])]
                    for row, n in zip(rows, done, strict=True)
                ]
            )
            logits = forward(model, ids, prefix=prefix, cache=cache)[:, -1]
            for place, (row, n) in enumerate(zip(rows, done, strict=True)):
                if n + step == N_MORE - 1:
                    last[row] = logits[place]
    assert sorted(last) == rows
    for row, logits in last.items():
        torch.testing.assert_close(logits, expected[row], atol=1e-3, rtol=1e-3)


def test_other_rows_reuse_the_copies_of_keys_and_values(random_model, sequences):
    prompts, _, _ = sequences
    model = random_model("llama")
    with torch.inference_mode(), shared_prefix_mode(model):
        caches = prefill(model, prompts)
    prefix = SharedPrefix(caches, [0, 1, 2, 3])
    (stack,) = [bundle.stack for bundle in prefix.levels[0].bundles]
    other = SharedPrefix(caches, [2, 0, 0, 1, 2], reuse=prefix)
    assert other.row_lengths.tolist() == [PROMPT_LENGTHS[i] for i in (2, 0, 0, 1, 2)]
    assert [bundle.stack for bundle in other.levels[0].bundles] == [stack]
    few = SharedPrefix(
        caches, [0], reuse=prefix
    )  # less than half of it: not worth its products any more
    assert [bundle.stack.caches for bundle in few.levels[0].bundles] == [stack.caches[:1]]


def test_mode_is_restored_after_an_error(random_model):
    model = random_model("llama")
    before = model.config._attn_implementation
    inside = []

    def fail():
        with shared_prefix_mode(model):
            inside.append(model.config._attn_implementation)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert inside == [ATTENTION_NAME]
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("length", [1, 31, 32, 33, 200])
def test_private_cache_keeps_what_it_is_given(length):
    """Growing in place loses nothing, at and around the borders of the buffer."""
    draws = torch.Generator().manual_seed(0)
    states = torch.randn(2, 3, length, 4, generator=draws)
    cache = PrivateCache([0, 0])
    for column in range(length):
        keys, values = cache.update(
            states[:, :, column : column + 1], -states[:, :, column : column + 1], 0
        )
    assert torch.equal(keys, states)
    assert torch.equal(values, -states)
    assert cache.width == length
