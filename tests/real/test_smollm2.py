"""A real pretrained model: ours agrees with transformers on it. Skipped until it is fetched."""

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from lm_eval_ext.methods.sinks.sink_scores import score_sinks
from lm_eval_ext.model_wrappers.sampled import SampledLM

SHOT = """Question: A box holds 4 pens. How many pens do 6 boxes hold?
Answer: 6 boxes hold 6 * 4 = 24 pens.
#### 24

"""
QUESTIONS = (
    "Mia had 12 shells and found 7 more on the beach. How many shells does she have?",
    "There are 45 pupils in 5 equal rows. How many pupils are in each row?",
    "A shop had 90 cakes and sold 34 of them. How many cakes are left?",
    "Tom reads  15 pages a day. How many pages does he read in 3 days?",
)


@pytest.fixture(scope="module")
def ours(smollm2):
    return SampledLM("smollm2", batch_size=4, device="cpu")


@pytest.fixture(scope="module")
def stock(smollm2):
    return HFLM(smollm2, batch_size=4, device="cpu")


def greedy(prompts):
    settings = {
        "do_sample": False,
        "temperature": 0.0,
        "max_gen_toks": 32,
        "until": ["Question:", "\n\n"],
    }
    return [
        Instance("generate_until", {}, (prompt, dict(settings)), i, ("real", i, 1))
        for i, prompt in enumerate(prompts)
    ]


@pytest.mark.parametrize("chat", [False, True])
def test_greedy_texts_are_those_of_hf(ours, stock, chat):
    prompts = [f"{SHOT}Question: {question}\nAnswer:" for question in QUESTIONS]
    if chat:
        turns = [[{"role": "user", "content": question}] for question in QUESTIONS]
        prompts = [ours.apply_chat_template(turn) for turn in turns]
        assert prompts == [stock.apply_chat_template(turn) for turn in turns]
    expected = stock.generate_until(greedy(prompts), disable_tqdm=True)
    assert list(ours.generate_until(greedy(prompts), disable_tqdm=True)) == expected
    assert len(set(expected)) == len(QUESTIONS)
    assert all(len(text.split()) > 3 for text in expected)


def test_sink_scores_are_those_of_eager_attention(ours):
    prompts = [ours.tok_encode(SHOT * n + QUESTIONS[n]) for n in (1, 2, 3)]
    scores = score_sinks(ours.model, prompts).score
    previous = ours.model.config._attn_implementation
    ours.model.set_attn_implementation("eager")
    columns = []
    with torch.inference_mode():
        for prompt in prompts:
            attentions = ours.model(torch.tensor([prompt]), output_attentions=True).attentions
            layers = [layer[0, :, :, 0].double().mean(dim=1) for layer in attentions]
            columns.append(torch.stack(layers))
    ours.model.set_attn_implementation(previous)
    expected = torch.stack(columns).mean(dim=0)
    assert scores.shape == (30, 9)
    assert (torch.tensor(scores) - expected).abs().max() < 1e-5
    # The sinks are real: one head attends to nothing else, and the later layers are full of them.
    assert scores.max() > 0.95
    assert scores[12:].mean() > 2 * scores[:6].mean()


def test_it_is_the_model_of_the_recipe(ours, smollm2):
    config = ours.model.config
    assert ours.model.dtype == torch.float32
    assert (config.num_hidden_layers, config.num_attention_heads, config.vocab_size) == (
        30,
        9,
        49_152,
    )
    assert config.tie_word_embeddings
    assert ours.shared_prefix_misfit is None
    assert ours.tokenizer.bos_token == "<|im_start|>"
    assert ours.tokenizer.tokenize("She paid  120.50") == [
        *("She", "Ġpaid", "ĠĠ", "1", "2", "0", ".", "5", "0"),
    ]
