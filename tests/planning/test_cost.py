"""The cost model agrees with counts done by hand, and moves the right way."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_ext.engine.row_memory import MOST_ROWS, bytes_per_row
from lm_eval_ext.errors import UserError
from lm_eval_ext.planning.cost import (
    CASES,
    Run,
    estimate,
    prefill_operations,
    rows_per_device,
    step_parts,
)
from lm_eval_ext.planning.hardware import GPUS, Device, Efficiency, Scenarios
from lm_eval_ext.planning.model_shape import ModelShape
from lm_eval_ext.planning.report import as_json, duration, plan_of, text
from lm_eval_ext.planning.workload import GRADING, Lengths, Workload

# Two layers of width 8: 4 matrices of attention, 3 of 8 x 16, and a tied output layer of 10 x 8.
SHAPE = ModelShape(
    name="by hand",
    parameters=2 * (4 * 64 + 3 * 128) + 80,
    embedding=0,
    head=80,
    routed=0,
    experts=1,
    experts_per_token=1,
    layers=2,
    query_width=8,
    heads=2,
    cache_numbers=2 * 2 * 8,
    vocabulary=10,
    dtype="float32",
)
PERFECT = Efficiency(1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
DEVICE = Device("perfect", 1e9, 1e6, 1e9, 1e9, Scenarios(PERFECT, PERFECT, PERFECT))


def workload(questions=1, prompt=100.0, attempts=4, response=10.0, most=10, **other):
    lengths = Lengths(response, response, response)
    return Workload(questions, prompt, most, attempts, lengths, **other)


def run(device=DEVICE, shape=SHAPE, number_bytes=4, **values):
    names = ("n_devices", "batch_size", "shared_prefix")
    options = {name: values.pop(name) for name in names if name in values}
    return Run(shape, device, workload(**values), number_bytes, **options)


def test_prefill_counts_every_pair_of_positions_once():
    length, shape = 5, SHAPE
    products = 2 * (shape.parameters - shape.head) * length + 2 * shape.head
    # Position i attends to i + 1 keys; as a continuous half of the square it is length^2 / 2.
    pairs = length**2 / 2
    attention = shape.layers * pairs * (2 * shape.query_width + 2 * shape.query_width)
    assert prefill_operations(run(prompt=length)) == products + attention
    copied = run(prompt=length, shared_prefix=False)
    assert prefill_operations(copied) == 4 * (products + attention)


def test_a_step_reads_the_weights_the_prompt_once_and_own_keys_per_row():
    parts = step_parts(run(), PERFECT, rows=4, own_tokens=6)
    assert parts["memory"] == pytest.approx(4 * (SHAPE.parameters + 32 * (100 + 4 * 6)) / 1e6)
    operations = 4 * (2 * SHAPE.parameters + 2 * 106 * 4 * 8)
    assert parts["compute"] == pytest.approx(operations / 1e9)
    copied = step_parts(run(shared_prefix=False), PERFECT, rows=4, own_tokens=6)
    assert copied["memory"] - parts["memory"] == pytest.approx(4 * 32 * 3 * 100 / 1e6)


def test_decoding_in_waves_of_equal_length():
    """12 attempts of 10 tokens, 4 at once, a perfect device: 30 steps."""
    found = estimate(run(questions=3, batch_size=4), "worst")
    assert found.steps == 30
    assert found.mean_rows == 4
    parts = step_parts(run(questions=3), PERFECT, rows=4, own_tokens=10)
    assert found.step_seconds == pytest.approx(max(parts["memory"], parts["compute"]))
    assert found.decode_seconds == pytest.approx(30 * found.step_seconds)


def test_launching_hides_behind_computing_on_a_gpu_only():
    efficiency = PERFECT._replace(layer_seconds=1.0)
    scenarios = Scenarios(efficiency, efficiency, efficiency)
    gpu = estimate(run(replace(DEVICE, scenarios=scenarios)), "expected")
    cpu = estimate(run(replace(DEVICE, scenarios=scenarios, asynchronous=False)), "expected")
    assert gpu.step_seconds == 2.0
    assert cpu.step_seconds > 2.0
    assert gpu.limited_by == "launch"


def test_experts_are_read_once_however_many_tokens_pass_them():
    experts = replace(SHAPE, parameters=1080, routed=800, experts=8, experts_per_token=2)
    assert experts.active == 1080 - 600
    assert experts.weights_read(1) == pytest.approx(1080 - 600)
    assert experts.weights_read(1000) == pytest.approx(1080)


def test_rows_fill_half_of_what_the_weights_leave():
    device = replace(DEVICE, memory=1e6)
    plain = run(device, questions=100, most=50)
    per_row = bytes_per_row(
        4 * 32, own_tokens=50, prompt_tokens=100, attempts_per_prompt=4, vocabulary=10
    )
    assert plain.row_bytes == per_row
    assert rows_per_device(plain) == int((0.95e6 - plain.weight_bytes) / 2 / per_row)
    assert rows_per_device(run(questions=1000)) == MOST_ROWS
    assert rows_per_device(run(questions=2)) == 8


def test_each_process_grades_its_own_attempts():
    one = estimate(run(questions=9, grading=GRADING["mbpp"]), "worst")
    assert one.grading_seconds == pytest.approx(9 * 4 * GRADING["mbpp"].worst)
    two = estimate(run(questions=9, grading=GRADING["mbpp"], n_devices=2), "worst")
    assert two.grading_seconds == pytest.approx(5 * 4 * GRADING["mbpp"].worst)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="weights of by hand take"):
        rows_per_device(run(replace(DEVICE, memory=100.0)))
    with pytest.raises(UserError, match="--max-gen-toks"):
        rows_per_device(run(most=10**9))


sizes = st.integers(1, 400)


@given(questions=sizes, attempts=sizes, prompt=sizes, response=sizes, name=st.sampled_from(CASES))
def test_more_of_anything_takes_longer_and_more_devices_do_not(
    questions, attempts, prompt, response, name
):
    asked = {
        "questions": questions,
        "attempts": attempts,
        "prompt": float(prompt),
        "response": float(response),
        "most": 2 * response,
    }
    device = GPUS["h200"]
    seconds = estimate(run(device, **asked), name).seconds
    assert seconds > 0
    for key in ("questions", "prompt"):
        assert estimate(run(device, **{**asked, key: 2 * asked[key]}), name).seconds >= seconds
    two = estimate(run(device, **asked, n_devices=2), name)
    assert two.decode_seconds <= estimate(run(device, **asked), name).decode_seconds * (1 + 1e-9)
    slower = replace(device, bandwidth=device.bandwidth / 2, flops=device.flops / 2)
    assert estimate(run(slower, **asked), name).seconds >= seconds
    copied = run(device, **asked, shared_prefix=False)
    assert prefill_operations(copied) == pytest.approx(
        attempts * prefill_operations(run(device, **asked))
    )
    assert copied.row_bytes >= run(device, **asked).row_bytes * (0.8 if attempts == 1 else 1)


@given(questions=sizes, attempts=sizes, response=sizes)
def test_the_cases_are_in_order(questions, attempts, response):
    asked = {"questions": questions, "attempts": attempts, "response": float(response)}
    found = [estimate(run(GPUS["a100"], **asked, most=4 * response), case) for case in CASES]
    times = [one.seconds for one in found]
    assert times == sorted(times)


def test_report_shows_the_numbers_of_the_plan():
    plan = plan_of(run(GPUS["h200"], questions=10, n_devices=2))
    lines = "\n".join(text(plan))
    assert f"{plan.rows} per device" in lines
    assert duration(plan.estimates["expected"].seconds) in lines
    assert "not measured on a GPU" in lines
    numbers = as_json(plan)
    assert numbers["rows_per_device"] == plan.rows
    assert numbers["estimates"]["worst"]["seconds"] == plan.estimates["worst"].seconds
