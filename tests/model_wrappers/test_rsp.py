"""Random soft prompts: the draw, the place, the controls and the record."""

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from scipy import stats

from lm_eval_ext.errors import UserError
from lm_eval_ext.model_wrappers.rsp import RSP

PROMPT = "Question: Ann has 3 apples. How many has she?\nAnswer:"


@pytest.fixture
def make_rsp(random_model, tiny_tokenizer):
    def make(architecture="llama", **arguments):
        values = {"seed": 0, "batch_size": 8, **arguments}
        return RSP(random_model(architecture), tokenizer=tiny_tokenizer, **values)

    return make


def test_draw_has_the_moments_of_the_table(make_rsp):
    """E||r||^2 = d (sigma^2 + mu^2), the mean squared norm of the table's rows."""
    rsp = make_rsp(length=4000)
    draw = rsp.draw(PROMPT, 0)
    table = rsp.model.get_input_embeddings().weight.detach()
    expected = float(table.double().square().sum(1).mean())
    assert float(draw.double().square().sum(1).mean()) == pytest.approx(expected, rel=0.01)
    sigma = float(table.double().std(correction=0))
    standard = ((draw - float(table.mean())) / sigma).flatten().numpy()
    assert stats.kstest(standard[:20_000], "norm").pvalue > 1e-3


def test_gemma_vectors_are_scaled_like_its_embeddings(make_rsp):
    rsp = make_rsp("gemma3", length=500)
    read = rsp.model.get_input_embeddings()(torch.arange(200)).detach()
    assert float(rsp.draw(PROMPT, 0).std()) == pytest.approx(float(read.std()), rel=0.1)


def test_per_dim_moments(make_rsp):
    rsp = make_rsp(length=5000, distribution="per_dim")
    draw = rsp.draw(PROMPT, 0).double()
    table = rsp.model.get_input_embeddings().weight.detach().double()
    torch.testing.assert_close(draw.std(0), table.std(0, correction=0), rtol=0.06, atol=0)
    assert float((draw.mean(0) - table.mean(0)).abs().max()) < 5 * float(table.std()) / 5000**0.5


@pytest.mark.parametrize(
    ("resample", "same_question", "other_question"),
    [("attempt", False, False), ("question", True, False), ("run", True, True)],
)
def test_resampling(make_rsp, resample, same_question, other_question):
    rsp = make_rsp(resample=resample)
    first = rsp.draw(PROMPT, 0)
    assert torch.equal(first, rsp.draw(PROMPT, 0))
    assert torch.equal(first, rsp.draw(PROMPT, 1)) == same_question
    assert torch.equal(first, rsp.draw("another", 0)) == other_question
    assert not torch.equal(first, make_rsp(resample=resample, seed=1).draw(PROMPT, 0))


def test_controls(make_rsp):
    table = make_rsp().model.get_input_embeddings().weight.detach()
    zero = make_rsp(control="zero").draw(PROMPT, 0)
    assert zero.shape == (8, table.shape[1])
    assert not zero.any()
    mean = make_rsp(control="mean").draw(PROMPT, 0)
    torch.testing.assert_close(mean, torch.full_like(mean, float(table.mean())))
    placeholder = make_rsp(control="placeholder").draw(PROMPT, 0)
    assert len(placeholder.unique(dim=0)) == 1
    assert (table == placeholder[0]).all(1).any()
    tokens = make_rsp(control="real_tokens")
    rows = tokens.draw(PROMPT, 0)
    assert all((table == row).all(1).any() for row in rows)
    assert len(rows.unique(dim=0)) > 4
    assert not torch.equal(rows, tokens.draw(PROMPT, 1))
    shared = make_rsp(control="shared")
    assert torch.equal(shared.draw(PROMPT, 0), shared.draw(PROMPT, 1))
    assert not torch.equal(shared.draw(PROMPT, 0), shared.draw("another", 0))


def test_scale_widens_around_the_mean(make_rsp):
    narrow, wide = (make_rsp(scale=scale).draw(PROMPT, 0) for scale in (1.0, 3.0))
    mean = make_rsp(control="mean").draw(PROMPT, 0)
    torch.testing.assert_close(wide - mean, 3 * (narrow - mean), atol=1e-5, rtol=1e-4)
    assert torch.equal(make_rsp(scale=0.0).draw(PROMPT, 0), mean)


def layout(rsp, prompt, token_ids):
    request = rsp.attempt_request(prompt, token_ids, 0)
    return request.shared_ids, request.n_vectors, request.private_ids


def test_positions(make_rsp, tiny_tokenizer):
    ids = tuple(tiny_tokenizer(PROMPT)["input_ids"])
    assert layout(make_rsp(), PROMPT, ids) == (ids, 8, ())
    assert layout(make_rsp(position="after_prompt"), PROMPT, ids) == (ids, 8, ())
    assert layout(make_rsp(position="prefix"), PROMPT, ids) == (ids[:1], 8, ids[1:])
    with pytest.raises(UserError, match="position=end_of_user: the prompt holds no user turn"):
        layout(make_rsp(position="end_of_user"), PROMPT, ids)


@pytest.mark.parametrize("position", ["auto", "end_of_user"])
def test_in_a_chat_the_vectors_close_the_users_message(make_rsp, tiny_tokenizer, position):
    rsp = make_rsp(position=position)
    chat = rsp.apply_chat_template([{"role": "user", "content": "How many apples?"}])
    ids = rsp.tok_batch_encode([chat])[0][0].tolist()
    shared, n_vectors, private = layout(rsp, chat, ids)
    assert shared + private == tuple(ids)
    assert n_vectors == 8
    assert tiny_tokenizer.decode(shared).endswith("How many apples?")
    assert "assistant" in tiny_tokenizer.decode(private)


@pytest.mark.parametrize("position", ["after_prompt", "prefix"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3", "granite"])
def test_injection_equals_generate_from_embeddings(
    make_rsp, tiny_tokenizer, make_requests, architecture, position
):
    """Greedy decoding against ``generate(inputs_embeds=...)`` built by hand."""
    rsp = make_rsp(architecture, length=3, position=position)
    (ours,) = rsp.generate_until(
        make_requests([PROMPT], n_attempts=1, do_sample=False, temperature=0.0), disable_tqdm=True
    )
    ids = tiny_tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    embedded = rsp.model.get_input_embeddings()(ids).detach()
    at = ids.shape[1] if position == "after_prompt" else 1
    vectors = rsp.draw(PROMPT, 0)[None]
    inputs = torch.cat([embedded[:, :at], vectors, embedded[:, at:]], dim=1)
    mask = torch.ones(inputs.shape[:2], dtype=torch.int64)
    expected = rsp.model.generate(
        inputs_embeds=inputs, attention_mask=mask, do_sample=False, max_new_tokens=12
    )[0].tolist()
    got = list(ours.record.token_ids)
    assert got == expected[: len(got)]
    assert len(got) > 1


def test_repetition_penalty_sees_the_real_tokens_alone(make_rsp, make_requests, monkeypatch):
    """Token 0 stands where the vectors go and must not be taken for part of the text."""
    from lm_eval_ext.engine import attempt_decoder

    seen = []
    original = attempt_decoder.padded_contexts
    monkeypatch.setattr(
        attempt_decoder, "padded_contexts", lambda rows: seen.append(rows) or original(rows)
    )
    rsp = make_rsp(length=4)
    requests = make_requests([PROMPT], n_attempts=1, repetition_penalty=1.5)
    (generation,) = rsp.generate_until(requests, disable_tqdm=True)
    prompt_ids = tuple(rsp.tokenizer(PROMPT)["input_ids"])
    tokens = generation.record.token_ids
    assert [tuple(row) for (row,) in seen] == [prompt_ids + tokens[:n] for n in range(len(tokens))]


def test_loglikelihood_is_refused_unless_asked_for(make_rsp):
    request = Instance("loglikelihood", {}, ("3 + 4 =", " 7"), 0)
    with pytest.raises(UserError, match="loglikelihood=true"):
        make_rsp().loglikelihood([request])
    with pytest.raises(UserError, match="loglikelihood=true"):
        make_rsp().loglikelihood_rolling([request])
    plain = make_rsp(length=0, loglikelihood=True).loglikelihood([request], disable_tqdm=True)
    assert make_rsp(loglikelihood=True).loglikelihood([request], disable_tqdm=True) == plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": -1.0}, "length=-1.0 must be an integer of at least 0"),
        ({"length": 2.5}, "length=2.5 must be an integer"),
        ({"length": True}, "length=True must be an integer"),
        ({"scale": -0.5}, "scale=-0.5 must be a number of at least 0"),
        ({"scale": float("nan")}, "scale=nan must be a number"),
        ({"position": "suffix"}, "position='suffix' is unknown: use one of auto, end_of_user"),
        ({"resample": "token"}, "resample='token' is unknown: use one of"),
        ({"distribution": "full"}, "distribution='full' is unknown: use one of"),
        ({"control": "noise"}, "control='noise' is unknown: use one of"),
        ({"scale": float("inf")}, "scale=inf must be a number"),
        ({"loglikelihood": "no"}, "loglikelihood='no' must be true or false"),
        ({"seed": "abc"}, "seed='abc' must be a whole number"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
    ],
)
def test_bad_arguments_are_named(make_rsp, arguments, message):
    with pytest.raises(UserError, match=message):
        make_rsp(**arguments)


def test_text_headers_are_counted_in_the_whole_prompt(make_rsp, tiny_tokenizer, monkeypatch):
    """A header of plain text may merge with what stands before it: offsets, not its own tokens."""
    rsp = make_rsp()
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %} [END] assistant says:"
    monkeypatch.setattr(rsp.tokenizer, "chat_template", template)
    chat = rsp.apply_chat_template([{"role": "user", "content": "How many apples?"}])
    ids = rsp.tok_batch_encode([chat])[0][0].tolist()
    shared, n_vectors, private = layout(rsp, chat, ids)
    assert n_vectors == 8
    assert shared + private == tuple(ids)
    assert tiny_tokenizer.decode(shared).endswith("How many apples?")
    assert rsp.run_record()["soft_prompt"]["positions_used"] == ["end_of_user"]


def test_everything_used_is_on_record(make_rsp):
    rsp = make_rsp(length=5, position="prefix", scale=0.5, seed=9)
    table = rsp.model.get_input_embeddings().weight.detach().double()
    record = rsp.run_record()["soft_prompt"]
    assert record["mu"] == pytest.approx(float(table.mean()), rel=1e-4, abs=1e-7)
    assert record["sigma"] == pytest.approx(float(table.std(correction=0)), rel=1e-5)
    assert record["rows"] == table.shape[0]
    assert (record["length"], record["position"], record["scale"], record["seed"]) == (
        5, "prefix", 0.5, 9,
    )  # fmt: skip
    np.testing.assert_equal(record["control"], "none")
