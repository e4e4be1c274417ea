import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_ext.errors import UserError
from lm_eval_ext.training.dapo.dynamic_sampling import check_filled, fill_groups
from lm_eval_ext.training.dapo.rewards import Group
from lm_eval_ext.training.prompts import Problem

verdicts = st.lists(st.sampled_from([0.0, 1.0]), min_size=3, max_size=3)


def group(values, penalties=None):
    penalties = tuple(penalties or [0.0] * len(values))
    return Group(Problem(""), (), tuple(values), penalties)


@given(st.lists(verdicts, min_size=60, max_size=60), st.integers(1, 5), st.integers(0, 4))
def test_only_groups_with_variance_are_kept_and_the_bound_holds(stream, wanted, bound):
    rest, asked = iter(stream[wanted:]), []

    def roll_out(questions):
        asked.append(len(questions))
        return [group(question) for question in questions]

    def further(n):
        return [next(rest) for _ in range(n)]

    filled = fill_groups(stream[:wanted], roll_out, further, max_refills=bound)
    assert len(asked) - 1 == filled.counts.refills <= bound
    seen = stream[: sum(asked)]
    varied = [tuple(values) for values in seen if 0 < sum(values) < 3]
    # The first ones, in order, and none is lost while some are missing.
    assert [g.verdicts for g in filled.groups] == varied[:wanted]
    assert filled.missing == max(0, wanted - len(varied))
    assert filled.missing == 0 or filled.counts.refills == bound
    counts = filled.counts
    assert counts.groups == len(seen)
    assert counts.all_right == sum(values == [1.0] * 3 for values in seen)
    assert counts.all_wrong == sum(values == [0.0] * 3 for values in seen)
    assert counts.surplus == max(0, len(varied) - wanted)
    assert counts.accuracy_sum == pytest.approx(sum(sum(values) / 3 for values in seen))


def test_verdicts_decide_not_penalties():
    assert not group([1.0, 1.0], [0.0, -0.5]).varies
    assert not group([0.0, 0.0], [0.0, -0.5]).varies
    assert group([1.0, 0.0], [-0.5, 0.0]).varies


def test_group_whose_penalties_cancel_its_verdicts_is_dropped_and_counted():
    cancelled = group([1.0, 0.0], [-1.0, 0.0])
    assert not cancelled.varies
    filled = fill_groups([cancelled], lambda questions: list(questions), None, max_refills=0)
    assert (filled.missing, filled.counts.cancelled, filled.counts.dropped) == (1, 1, 1)


def test_message_at_the_bound_says_what_was_seen_and_what_to_do():
    filled = fill_groups(
        [[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]],
        lambda questions: [group(q) for q in questions],
        lambda n: [[1.0, 1.0]] * n,
        max_refills=2,
    )
    with pytest.raises(UserError) as error:
        check_filled(filled.missing, 3, filled.counts, 2)
    message = str(error.value)
    assert "\n" not in message
    assert "max_refills=2 reached: 1 of 3 groups" in message
    assert "11 groups rolled out 9 were all right and 1 all wrong" in message
    assert "--max-refills" in message
    assert "--overlong-buffer" not in message
    check_filled(0, 3, filled.counts, 2)


def test_message_at_the_bound_counts_groups_that_the_penalty_cancelled():
    groups = [group([1.0, 0.0], [-1.0, 0.0])] * 2 + [group([1.0, 1.0])]
    filled = fill_groups(groups, lambda questions: list(questions), None, max_refills=0)
    with pytest.raises(UserError, match="0 of 3 groups of this step were found") as error:
        check_filled(filled.missing, 3, filled.counts, 0)
    assert "1 were all right and 0 all wrong, and in 2 the overlong penalty" in str(error.value)
    assert "change --overlong-buffer" in str(error.value)
