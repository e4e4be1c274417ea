r"""Where the completion of a box ends."""

import pytest

from lm_eval_ext.methods.self_evaluation.box_completion import ClosingBrace
from lm_eval_ext.models.thoughts import ThoughtFormats

OPENED = ThoughtFormats().opened_by("2 + 2?<think>\n")


@pytest.mark.parametrize("opened", [None, OPENED])
@pytest.mark.parametrize(
    ("inside", "closed"),
    [
        ("4}", True),
        ("\\frac{1}{2}}", True),
        ("<think>\n4}", True),
        ("4", False),
        ("\\frac{1}{2}", False),
        ("4\\}", False),
    ],
)
def test_a_box_ends_at_its_brace_whatever_the_prompt_opens(tiny_tokenizer, opened, inside, closed):
    """The thought that the prompt opens is not that of the completion, which follows a lead-in."""
    brace = ClosingBrace(tiny_tokenizer)
    token_ids = tiny_tokenizer(inside, add_special_tokens=False)["input_ids"]
    assert brace.completed(token_ids, opened) == closed
    assert not brace.inside_thought(token_ids, opened)
