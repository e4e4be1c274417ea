"""Rows, memory and the least time, against counting by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_ext.commands.plan.cost import Run, bandwidth_roof, rows_per_device
from lm_eval_ext.commands.plan.hardware import GPUS, Device
from lm_eval_ext.commands.plan.model_shape import ModelShape
from lm_eval_ext.commands.plan.report import as_json, duration, plan_of, text
from lm_eval_ext.commands.plan.workload import Workload
from lm_eval_ext.engine.memory import MAX_ROWS, bytes_per_row
from lm_eval_ext.errors import UserError

# Two layers of width 8: 4 matrices of attention, 3 of 8 x 16, and a tied output layer of 10 x 8.
SHAPE = ModelShape(
    name="by hand",
    parameters=2 * (4 * 64 + 3 * 128) + 80,
    embedding=0,
    routed=0,
    experts=1,
    experts_per_token=1,
    layers=2,
    cache_numbers=2 * 2 * 8,
    vocabulary=10,
    dtype="float32",
)
DEVICE = Device("by hand", memory=1e9, bandwidth=1e6)


def workload(questions=1, prompt=100.0, attempts=4, response=10.0, most=10):
    return Workload(questions, prompt, most, attempts, response)


def run(device=DEVICE, shape=SHAPE, number_bytes=4, **values):
    names = ("n_devices", "batch_size")
    options = {name: values.pop(name) for name in names if name in values}
    return Run(shape, device, workload(**values), number_bytes, **options)


def test_a_step_reads_the_weights_the_prompt_once_and_own_keys_per_row():
    """4 attempts of 10 tokens at once: 10 steps, and 5 own keys of a row in the mean."""
    roof = bandwidth_roof(run())
    assert (roof.rows, roof.steps) == (4, 10)
    assert roof.seconds == pytest.approx(10 * 4 * (SHAPE.parameters + 32 * (100 + 4 * 5)) / 1e6)


def test_decoding_in_waves_of_equal_length():
    """12 attempts of 10 tokens, 4 at once: 30 steps."""
    roof = bandwidth_roof(run(questions=3, batch_size=4))
    assert (roof.rows, roof.steps) == (4, 30)


def test_experts_are_read_once_however_many_tokens_pass_them():
    experts = replace(SHAPE, parameters=1080, routed=800, experts=8, experts_per_token=2)
    assert experts.active == 1080 - 600
    assert experts.weights_read(1) == pytest.approx(1080 - 600)
    assert experts.weights_read(1000) == pytest.approx(1080)


def test_rows_fill_half_of_what_the_weights_leave():
    device = DEVICE._replace(memory=1e6)
    plain = run(device, questions=100, most=50)
    per_row = bytes_per_row(
        4 * 32, own_tokens=50, prompt_tokens=100, attempts_per_prompt=4, vocabulary=10
    )
    assert plain.row_bytes == per_row
    assert rows_per_device(plain) == int((0.95e6 - plain.weight_bytes) / 2 / per_row)
    assert rows_per_device(run(questions=1000)) == MAX_ROWS
    assert rows_per_device(run(questions=2)) == 8


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="weights of by hand take"):
        rows_per_device(run(DEVICE._replace(memory=100.0)))
    with pytest.raises(UserError, match="--max-new-tokens"):
        rows_per_device(run(most=10**9))


sizes = st.integers(1, 400)


@given(questions=sizes, attempts=sizes, prompt=sizes, response=sizes)
def test_more_of_anything_takes_longer_and_more_devices_do_not(
    questions, attempts, prompt, response
):
    asked = {
        "questions": questions,
        "attempts": attempts,
        "prompt": float(prompt),
        "response": float(response),
        "most": 2 * response,
    }
    device = GPUS["h200"]
    seconds = bandwidth_roof(run(device, **asked)).seconds
    assert seconds > 0
    for key in ("questions", "prompt"):
        more = bandwidth_roof(run(device, **{**asked, key: 2 * asked[key]})).seconds
        assert more >= seconds * (1 - 1e-9)
    two = bandwidth_roof(run(device, **asked, n_devices=2)).seconds
    assert two <= seconds * (1 + 1e-9)
    slower = device._replace(bandwidth=device.bandwidth / 2)
    assert bandwidth_roof(run(slower, **asked)).seconds == pytest.approx(2 * seconds)


def test_report_shows_the_numbers_of_the_plan():
    plan = plan_of(run(GPUS["h200"], questions=10, n_devices=2))
    lines = "\n".join(text(plan))
    assert f"{plan.roof.rows} per device" in lines
    assert f"at least {duration(plan.roof.seconds)}" in lines
    numbers = as_json(plan)
    assert numbers["least"]["rows"] == plan.roof.rows
    assert numbers["least"]["seconds"] == plan.roof.seconds
