"""What holds for every wrapper."""

import json
import random

import pytest
from lm_eval.utils import handle_non_serializable

from lm_eval_ext.errors import UserError
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.models.generation import Generation


@pytest.fixture
def make_lm(wrapper_name, wrapper_class, random_model, tiny_tokenizer):
    """Return a function that makes the wrapper around a random model."""

    def make(*, architecture="llama", seed=0, batch_size=8, **arguments):
        return wrapper_class(wrapper_name)(
            random_model(architecture),
            tokenizer=tiny_tokenizer,
            seed=seed,
            batch_size=batch_size,
            **arguments,
        )

    return make


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt_neox", "mamba"])
def test_neutral_settings_are_the_plain_control(
    make_lm, make_requests, neutral_arguments, random_model, tiny_tokenizer, architecture
):
    lm = make_lm(architecture=architecture, **neutral_arguments)
    plain = SampledLM(random_model(architecture), tokenizer=tiny_tokenizer, seed=0, batch_size=8)
    ours = lm.generate_until(make_requests(), disable_tqdm=True)
    expected = plain.generate_until(make_requests(), disable_tqdm=True)
    assert ours == expected
    assert [g.record.token_ids for g in ours] == [g.record.token_ids for g in expected]


def test_text_depends_on_the_attempt_alone(make_lm, make_requests, arguments):
    reference = make_lm(**arguments).generate_until(make_requests(), disable_tqdm=True)
    for batch_size in (1, 5, "auto"):
        lm = make_lm(batch_size=batch_size, **arguments)
        assert lm.generate_until(make_requests(), disable_tqdm=True) == reference
    # Other attempts of other questions, in another order; within a question attempts keep theirs.
    requests = make_requests()
    order = sorted(range(len(requests)), key=lambda i: (random.Random(i // 3).random(), i))
    shuffled = make_lm(**arguments).generate_until([requests[i] for i in order], disable_tqdm=True)
    assert shuffled == [reference[i] for i in order]
    fewer = make_lm(**arguments).generate_until(make_requests(n_attempts=1), disable_tqdm=True)
    assert fewer == reference[::3]


def test_seed_changes_the_attempts(make_lm, make_requests, arguments):
    one, other = (
        make_lm(seed=seed, **arguments).generate_until(make_requests(), disable_tqdm=True)
        for seed in (0, 1)
    )
    assert sum(a != b for a, b in zip(one, other, strict=True)) > len(one) / 2


def test_attempts_of_a_question_differ(make_lm, make_requests, arguments):
    attempts = make_lm(**arguments).generate_until(
        make_requests(prompts=["Question:"], n_attempts=8), disable_tqdm=True
    )
    assert len(set(attempts)) > 4


def test_generations_carry_their_record(make_lm, make_requests, arguments):
    lm = make_lm(**arguments)
    generations = lm.generate_until(make_requests(), disable_tqdm=True)
    assert all(type(generation) is Generation for generation in generations)
    assert [generation.record.attempt for generation in generations] == [0, 1, 2] * 4
    for generation in generations:
        record = generation.record
        assert 1 <= record.n_tokens <= 12
        assert record.finish_reason in ("stop", "eos", "length")
        assert all(len(values) == record.n_tokens for values in record.statistics)
        assert (
            generation
            == lm.tokenizer.decode(record.token_ids, skip_special_tokens=True).partition(
                "Question"
            )[0]
        )


def test_settings_are_on_record_as_json(make_lm, make_requests, arguments):
    lm = make_lm(**arguments)
    lm.generate_until(make_requests(), disable_tqdm=True)
    info = json.loads(json.dumps(lm.get_model_info(), default=handle_non_serializable))
    record = info["lm_eval_ext"]
    assert record["seed"] == 0
    (sampling,) = record["sampling"]
    assert sampling["temperature"] == 0.8
    assert sampling["top_k"] == 50  # not asked for: transformers' default, so it must be visible


def test_long_prompts_are_cut_from_the_left_and_counted(make_lm, make_requests, arguments):
    lm = make_lm(max_length=64, **arguments)
    long = " ".join(str(i) for i in range(200))
    (generation,) = lm.generate_until(
        make_requests(prompts=[long], n_attempts=1), disable_tqdm=True
    )
    record = generation.record
    assert record.n_prompt_tokens == 64 - 12 - lm.length
    total = len(lm.tokenizer(long)["input_ids"])
    assert record.n_truncated_prompt_tokens == total - record.n_prompt_tokens


def test_unsupported_setting_is_one_clear_line(make_lm, make_requests, arguments):
    lm = make_lm(**arguments)
    with pytest.raises(UserError, match="num_beams=4 is not supported"):
        lm.generate_until(make_requests(num_beams=4), disable_tqdm=True)


def test_missing_model_is_one_line(wrapper_name, wrapper_class, tmp_path):
    missing = tmp_path / "no" / "such" / "model"
    with pytest.raises(UserError, match="pretrained=.*no/such/model.*folder, or one of tiny") as e:
        wrapper_class(wrapper_name)(str(missing))
    assert "\n" not in str(e.value)


def test_misspelled_argument_is_named(make_lm, tmp_path, random_model, tiny_tokenizer):
    random_model("llama").save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    from lm_eval.api.registry import get_model

    with pytest.raises(UserError, match="lenght"):
        get_model("sampled")(str(tmp_path), lenght=8)
