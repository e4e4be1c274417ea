"""Prompts as ``--apply_chat_template`` renders them, with templates of the kinds models have."""

import pytest

TURNS = (
    "{{ bos_token }}{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
)
OPENING = "{% if add_generation_prompt %}<|im_start|>assistant\n"
TEMPLATES = {
    # The model answers at once, or opens its thinking section itself.
    "plain": TURNS + OPENING + "{% endif %}",
    # The template opens the section: completions have only a closing tag (DeepSeek-R1, QwQ).
    "opened": TURNS + OPENING + "<think>\n{% endif %}",
    # An empty section stands for not thinking (Qwen3).
    "switch": TURNS
    + OPENING
    + "{% if enable_thinking is defined and not enable_thinking %}"
    + "<think>\n\n</think>\n\n{% endif %}{% endif %}",
}
ASSISTANT = "<|im_start|>assistant\n"
CHAT_TASKS = ["gsm8k_passn_chat", "gsm8k_calib_chat", "math500_passn_chat", "math500_calib_chat"]
CHAT_TASKS += ["math_algebra_passn_chat", "math_algebra_calib_chat"]
CHAT_TASKS += ["mbpp_instruct_passn", "mbpp_instruct_calib"]
CHAT_TASKS += ["mawps_passn_chat", "svamp_calib_chat", "aime24_passn", "aime24_calib"]
FEWSHOT_TASKS = {"gsm8k_passn": 8, "math500_calib": 4, "mbpp_passn": 3, "mbpp_sanitized_calib": 3}
FEWSHOT_TASKS |= {"mawps_passn": 8, "svamp_calib": 8}
RIGHT = {
    "gsm8k": "It is 2 + 2, so \\boxed{4}.",
    "math": "It is $\\boxed{4}$.",
    "mbpp": "Here it is:\n```python\ndef double_11(x):\n    return 2 * x\n```\nDone.",
}


@pytest.fixture(scope="module")
def lm():
    from lm_eval_ext.model_wrappers.sampled import SampledLM

    return SampledLM(pretrained="tiny", device="cpu")


@pytest.fixture
def render(lm, load, prompt_of, monkeypatch):
    """Return a function that renders a task's first prompt with one of the templates."""

    def prompt(name, template="plain", *, n_shots=None, multiturn=False, **arguments):
        monkeypatch.setattr(lm.tokenizer, "chat_template", TEMPLATES[template])
        monkeypatch.setattr(lm, "chat_template_args", arguments)
        task = load(name)
        if n_shots is not None:
            task.set_config("num_fewshot", n_shots)
        return prompt_of(
            task,
            apply_chat_template=True,
            chat_template=lm.apply_chat_template,
            fewshot_as_multiturn=multiturn,
        )

    return prompt


@pytest.mark.parametrize("name", CHAT_TASKS)
def test_a_chat_task_is_one_user_turn_and_an_empty_assistant_turn(render, load, name):
    task = load(name)
    question = task.doc_to_text(task.eval_docs[0])
    assert render(name) == f"<s><|im_start|>user\n{question}<|im_end|>\n{ASSISTANT}"


@pytest.mark.parametrize("name", CHAT_TASKS)
def test_the_template_decides_about_the_thinking_section(render, name):
    plain = render(name)
    assert render(name, "opened") == plain + "<think>\n"
    assert render(name, "switch") == render(name, "switch", enable_thinking=True) == plain
    closed = render(name, "switch", enable_thinking=False)
    assert closed == plain + "<think>\n\n</think>\n\n"


@pytest.mark.parametrize("name", FEWSHOT_TASKS)
def test_shots_are_turns_or_one_turn(render, load, name):
    n_shots = FEWSHOT_TASKS[name]
    turns = render(name, multiturn=True)
    assert turns.count("<|im_start|>user\n") == n_shots + 1
    assert turns.count(ASSISTANT) == n_shots + 1
    single = render(name)
    assert single.count("<|im_start|>user\n") == 1
    assert single.count(ASSISTANT) == 1
    task = load(name)
    question = task.doc_to_text(task.eval_docs[0])
    for prompt in (turns, single):
        assert prompt.endswith(f"{question}<|im_end|>\n{ASSISTANT}")


@pytest.mark.parametrize("name", CHAT_TASKS)
def test_a_chat_task_shows_shots_on_request(render, name):
    turns = render(name, n_shots=2, multiturn=True)
    assert turns.count(ASSISTANT) == 3
    answers = [turn.split("<|im_end|>")[0] for turn in turns.split(ASSISTANT)[1:3]]
    assert all(("```python\n" if "mbpp" in name else "\\boxed{") in answer for answer in answers)


def test_the_code_of_mbpp_is_asked_for_in_the_user_turn(render):
    """The assistant's turn starts empty: an answer may be bare code, a code block or a thought."""
    assert render("mbpp_passn").endswith(f"\n[BEGIN]\n<|im_end|>\n{ASSISTANT}")
    assert render("mbpp_instruct_passn").endswith(f"code block.<|im_end|>\n{ASSISTANT}")


@pytest.mark.parametrize("name", ["gsm8k_passn", "math500_passn_chat", "mbpp_instruct_calib"])
def test_the_beginning_of_sequence_is_not_doubled(lm, render, load, prompt_of, name):
    bos = lm.tokenizer.bos_token_id
    for prompt in (render(name), prompt_of(load(name))):
        for token_ids in (
            lm.prompt_token_ids(prompt),
            lm.tok_batch_encode([prompt])[0][0].tolist(),
        ):
            assert token_ids.count(bos) == int(prompt.startswith("<s>") or token_ids[0] == bos)
            assert token_ids[:2] != [bos, bos]


@pytest.mark.parametrize(
    ("name", "thought"),
    [(name, thought) for name in CHAT_TASKS[::2] for thought in ("none", "own", "opened", "cut")],
)
def test_an_answer_is_read_after_the_thinking_section(load, judge, name, thought):
    task = load(name)
    doc = task.eval_docs[0]
    answer = RIGHT[task.grader]
    wrong = answer.replace("4", "5").replace("2 *", "3 *")
    completion = {
        "none": answer,
        "own": f"<think>\nPerhaps {wrong}\n</think>\n\n{answer}",
        "opened": f"Perhaps {wrong}\n</think>\n\n{answer}",
        "cut": f"<think>\nPerhaps {answer} But",
    }[thought]
    first, _ = judge(task, doc, [completion] * 2)
    assert first["correct"] is (thought != "cut")
    assert (first["answer"] is None) is (thought == "cut")


@pytest.mark.parametrize(
    "completion",
    [
        "def double_11(x):\n    return 2 * x\n",
        "def double_11(x):\n    return 2 * x\n[DONE]",
        "[BEGIN]\ndef double_11(x):\n    return 2 * x\n[DONE]",
        "```python\ndef double_11(x):\n    return 2 * x\n```",
        "Sure:\n\n```python\ndef double_11(x):\n    return 2 * x\n```\n\nIt doubles.",
    ],
)
def test_a_chat_model_may_answer_the_few_shot_prompt_of_mbpp_in_its_own_way(
    load, judge, completion
):
    task = load("mbpp_calib")
    (attempt,) = judge(task, task.eval_docs[0], [completion])
    assert attempt["correct"]
