"""The processor for vLLM's second model runner, without an engine: the tokens of the first."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("vllm")

from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

from lm_eval_ext.engine.random_stream import attempt_stream
from lm_eval_ext.engine.sampling_settings import SamplingSettings
from lm_eval_ext.vllm_engine.attempt_sampler import AttemptSampler
from lm_eval_ext.vllm_engine.instructions import NAME, readout_instruction, sampling_instruction
from lm_eval_ext.vllm_engine.second_runner import SecondRunnerSampler

VOCABULARY = 50
LENGTHS = np.array([4, 7, 3, 5], dtype=np.int32)  # of the prompts, by slot


def settings(**changes):
    values = {"temperature": 0.9, "top_k": 40, "top_p": 1.0, "max_new_tokens": 8, "stop": ()}
    return SamplingSettings(**{**values, **changes})


def params(key, **changes):
    stream = attempt_stream(0, key, 0, purpose="tokens")
    instruction = sampling_instruction(key, settings(**changes), stream, [1, 2, 3])
    return SimpleNamespace(extra_args={NAME: instruction})


def context(slots, n_tokens):
    """Return what the runner says of a step: rows in any order, tokens so far by slot."""
    slots = np.array(slots)
    lengths = np.array([LENGTHS[slot] + n_tokens[slot] for slot in slots])
    mapping = torch.tensor(slots)
    return LogitsContext(
        expanded_idx_mapping=mapping,
        idx_mapping=mapping,
        idx_mapping_np=slots,
        expanded_local_pos=torch.zeros_like(mapping),
        input_ids=torch.zeros_like(mapping),
        pos=torch.tensor(lengths - 1),
        seq_lens_upper_bound_np=lengths,
    )


@pytest.fixture
def second():
    return SecondRunnerSampler(None, SimpleNamespace(prompt_len=SimpleNamespace(np=LENGTHS)))


def logits_of(step, n_rows):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(n_rows, VOCABULARY, generator=generator)


def chosen(logits):
    assert ((logits > -torch.inf).sum(dim=1) == 1).all()
    return logits.argmax(dim=1).tolist()


def test_both_runners_choose_the_same_tokens(second):
    first = AttemptSampler(None, torch.device("cpu"), False)
    keys = {0: "a", 2: "b", 3: "c"}  # slot 1 is somebody else's
    outputs = {}
    for slot, key in keys.items():
        changes = {"repetition_penalty": 1.3} if key == "b" else {}
        outputs[slot] = []
        assert second.add_request(slot, params(key, **changes))
        first._rows[slot] = first._row(params(key, **changes), [], outputs[slot])
    assert not second.add_request(1, SimpleNamespace(extra_args=None))
    generator = np.random.default_rng(0)
    for step in range(6):
        logits = logits_of(step, 4)
        ours = first.apply(logits.clone())
        order = generator.permutation(4)
        n_tokens = dict.fromkeys(range(4), step)
        theirs = second.apply(logits[order].clone(), context(order, n_tokens))
        for row, slot in enumerate(order.tolist()):
            torch.testing.assert_close(theirs[row], ours[slot])
        assert torch.equal(theirs[order.tolist().index(1)], logits[1])
        for slot in keys:
            outputs[slot] += chosen(ours[slot][None])
    assert second.take(["a", "b", "c"]) == first.take(["a", "b", "c"])


def test_a_place_is_chosen_alike_after_a_preemption(second):
    second.add_request(0, params("a"))
    before = [chosen(second.apply(logits_of(i, 1), context([0], {0: i}))) for i in range(4)]
    second.add_request(2, params("a"))  # comes back in another slot, and reads all of it again
    partly = logits_of(9, 1)
    unread = context([2], {2: -1})
    assert torch.equal(second.apply(partly.clone(), unread), partly)
    again = [chosen(second.apply(logits_of(i, 1), context([2], {2: i}))) for i in (3, 4)]
    assert again[0] == before[3]
    assert len(second.take(["a"])["a"]) == 5 * 4 * 4


def test_a_slot_is_that_of_its_latest_request(second):
    second.add_request(0, params("a"))
    second.add_request(0, SimpleNamespace(extra_args={}))
    logits = logits_of(0, 1)
    assert torch.equal(second.apply(logits.clone(), context([0], {0: 0})), logits)


def test_logits_are_read(second):
    reading = SimpleNamespace(extra_args={NAME: readout_instruction("r", [3, 8])})
    second.add_request(1, reading)
    logits = logits_of(0, 1)
    second.apply(logits.clone(), context([1], {1: 0}))
    found = np.frombuffer(second.take(["r"])["r"], dtype=np.float32)
    assert found.tolist() == logits[0, [3, 8]].tolist()
    second.forget()
    assert second.take(["r"]) == {}
