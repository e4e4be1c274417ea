"""Reading lm-eval's requests: attempt numbers, prompts, settings, texts."""

import pytest
from lm_eval.api.instance import Instance

from lm_eval_ext.engine import attempt_texts
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.model_wrappers.sampled import SampledLM


@pytest.fixture(scope="module")
def lm(random_model, tiny_tokenizer):
    return SampledLM(random_model("llama"), tokenizer=tiny_tokenizer, seed=0)


def instance(prompt, n, settings=None):
    return Instance(
        "generate_until", {}, (prompt, settings or {"until": ["\n"]}), 0, ("task", 0, n)
    )


def test_attempts_are_numbered_per_request_also_under_padding(lm):
    """lm-eval repeats the last request to pad a rank; equal prompts of two tasks stay apart."""
    first, second, same_prompt = instance("a", 2), instance("b", 3), instance("a", 2)
    requests = [first] * 2 + [second] * 3 + [same_prompt] * 2 + [second] * 3
    numbers = [request.attempt for request in harness.generation_requests(lm, requests)]
    assert numbers == [0, 1, 0, 1, 2, 0, 1, 3, 4, 5]


def test_settings_are_read_as_lm_eval_reads_them(lm):
    settings = {"until": "Q:", "max_gen_toks": 7, "do_sample": True, "temperature": 0.7}
    (request,) = harness.generation_requests(lm, [instance("a", 1, settings)])
    assert request.stop == ("Q:", lm.tokenizer.eos_token)
    assert request.max_new_tokens == 7
    assert dict(request.settings) == {"do_sample": True, "temperature": 0.7}


def test_arguments_of_a_base_beside_lm_evals_are_a_models_arguments(lm):
    known = harness.model_arguments()
    # Of the sampling, of a method, of lm-eval's own class.
    assert {"store", "self_eval", "pretrained", "batch_size", "max_length"} <= known
    assert "self" not in known


def test_a_prompt_is_tokenized_alike_whichever_class_loaded_the_model(lm):
    class Loaded:  # as lm-eval's class for vLLM: it has no `truncation` and no `tok_batch_encode`
        backend, add_bos_token, tokenizer = "causal", lm.add_bos_token, lm.tokenizer

    for prompt in ("Question: 1+1?", lm.tokenizer.bos_token + "x", "x"):
        expected = lm.tok_batch_encode([prompt])[0][0].tolist()
        assert harness.prompt_tokens(Loaded(), prompt) == expected


def test_bos_stands_once(lm):
    bos = lm.tokenizer.bos_token
    plain = harness.prompt_tokens(lm, "Question: 1+1?")
    with_bos = harness.prompt_tokens(lm, bos + "Question: 1+1?")
    assert plain == with_bos
    assert plain.count(lm.tokenizer.bos_token_id) == 1


def test_no_room_for_a_prompt_is_said_in_one_line(lm):
    with pytest.raises(UserError, match="max_gen_toks=512 and 8 injected positions leave no room"):
        harness.prompt_room(lm, max_new_tokens=512, length=8)


def test_text_is_cut_at_the_first_stop_string_and_after_thinking(lm):
    ids = lm.tokenizer("4 </think> the answer is 4. Q: next", add_special_tokens=False)["input_ids"]
    assert attempt_texts.visible_text(lm, ids, ["Q:"]).endswith("answer is 4. ")
    lm.think_end_token = "</think>"
    try:
        assert attempt_texts.visible_text(lm, ids, ["Q:"]) == "the answer is 4. "
    finally:
        lm.think_end_token = None


def test_end_of_the_users_turn(lm):
    turns = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "2+2?"},
    ]
    rendered = lm.apply_chat_template(turns)
    assert rendered[: harness.end_of_user_turn(lm, rendered)].endswith("2+2?")
    with_answer_begun = rendered + " The answer"
    assert with_answer_begun[: harness.end_of_user_turn(lm, with_answer_begun)].endswith("2+2?")
    assert harness.end_of_user_turn(lm, "Question: 2+2?\nAnswer:") is None
