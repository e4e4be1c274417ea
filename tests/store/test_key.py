"""Anything that changes a text or an annotation changes the key, and nothing else does."""

import inspect

import pytest
import torch
from lm_eval.models.huggingface import HFLM

from lm_eval_ext.model_wrappers.attempt_sampling import AttemptSampling
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.models.fingerprint import fingerprints, model_fingerprint, tensor_checksum
from lm_eval_ext.store.argument_effects import NO_EFFECT, SAMPLED_ARGUMENTS, KeyedArguments
from lm_eval_ext.store.run_contexts import run_contexts

JUDGED = {"self_eval": True}
TOKUR = {"reference": "tokur", "reference_samples": 2, "rank": 2}
# By argument: settings it comes with, and another value than the default.
CHANGES = {
    "sampled": {
        "seed": ({}, 1),
        "self_eval": ({}, True),
        "self_eval_prompt": (JUDGED, "\nRight?\nChoice:"),
        "self_eval_labels": (JUDGED, " B+ A"),
        "calibration_temperature": (JUDGED, 2.0),
        "box_completion": ({}, True),
        "thinking_budget": ({}, 5),
        "think_start_token": ({}, "<plan>"),
    },
    "epicar": {"self_eval": ({}, False)},
    "rsp": {
        "length": ({}, 3),
        "scale": ({}, 2.0),
        "position": ({}, "prefix"),
        "resample": ({}, "question"),
        "distribution": ({}, "per_dim"),
        "control": ({}, "mean"),
    },
    "draft-eu": {
        "drafts": ({}, "tiny+tiny"),
        "draft_dtype": ({}, "bfloat16"),
        "aggregate": ({}, "max"),
        "reference": ({}, "tokur"),
        "reference_samples": (TOKUR, 3),
        "rank": (TOKUR, 3),
        "sigma": (TOKUR, 0.2),
        "modules": (TOKUR, "q_proj"),
        "noise_scope": (TOKUR, "token"),
        "corrected": (TOKUR, True),
    },
    "sink-pruned": {"ratio": ({}, 0.25)},
}
PRUNING = [
    {"criterion": "random"},
    {"criterion": "random", "pruning_seed": 1},
    {"unit": "kv_group"},
    {"allocation": "even"},
    {"mean_compensation": True},
    {"calibration_size": 3},
]


@pytest.fixture(scope="module")
def contexts(make_lm):
    def of(name, arguments, **generation):
        lm = make_lm(name, **arguments)
        lm.fingerprints = lm.fingerprints or fingerprints(lm.model, lm.tokenizer)
        asked = {"do_sample": True, "temperature": 0.8, "max_gen_toks": 12, **generation}
        requests = []

        class TakenError(Exception):
            pass

        def take(group):
            requests.append(group)
            raise TakenError

        lm._answered = take
        from lm_eval_ext.harness import requests as harness

        with pytest.raises(TakenError):
            harness.complete(lm, ["x"], **asked)
        return run_contexts(lm, requests[0].settings), lm

    return of


def test_every_argument_is_declared_and_changes_the_key_as_declared(wrappers):
    for name, wrapper in wrappers.items():
        common = KeyedArguments if wrapper is SampledLM else SampledLM
        classes = set(wrapper.__mro__) - set(common.__mro__) - set(HFLM.__mro__)
        own = {
            argument: effect
            for kind in classes
            for argument, effect in vars(kind)["argument_effects"].items()
        }
        stated = {
            argument
            for kind in classes
            if "__init__" in vars(kind)
            for argument, parameter in inspect.signature(kind.__init__).parameters.items()
            if argument != "self" and parameter.kind is not inspect.Parameter.VAR_KEYWORD
        }
        assert stated <= own.keys() | SAMPLED_ARGUMENTS.keys(), name
        changing = {one for one in stated if own.get(one, NO_EFFECT).kind != "none"} - {
            "pretrained"
        }
        by_mask = {one for settings in PRUNING for one in settings} | {"calibration", "scores"}
        tested = set(CHANGES[name]) | (by_mask | {"skip_first"} if name == "sink-pruned" else set())
        assert changing == tested - ({"self_eval"} if name == "epicar" else set()), name


@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name in CHANGES for argument in CHANGES[name]]
)
def test_settings_change_the_key(contexts, name, argument):
    beside, other = CHANGES[name][argument]
    one, _ = contexts(name, beside)
    two, _ = contexts(name, {**beside, argument: other})
    assert one.final.name != two.final.name
    # Drafts read what is there: their settings leave the texts where they are.
    assert (one.text.name == two.text.name) == (name == "draft-eu")


def test_speed_does_not_change_the_key(contexts):
    one, _ = contexts("rsp", {})
    two, _ = contexts("rsp", {"batch_size": "auto", "max_batch_size": 7, "loglikelihood": True})
    assert one == two


@pytest.mark.parametrize("name", ["sampled", "rsp"])
def test_what_the_model_is_loaded_with_counts_by_its_fingerprint(contexts, name):
    """Stores of before are found again, whatever else transformers or vLLM was given."""
    plain, _ = contexts(name, {})
    assert contexts(name, {"low_cpu_mem_usage": True, "max_num_seqs": 7})[0] == plain


def test_a_mask_is_its_heads(contexts):
    plain, lm = contexts("sink-pruned", {"ratio": 0.25})
    assert lm.plan.removal.heads
    for arguments in PRUNING:
        other, pruned = contexts("sink-pruned", {"ratio": 0.25, **arguments})
        same = pruned.plan.removal == lm.plan.removal and pruned.plan.replacement is None
        assert (other.text.name == plain.text.name) == same, arguments


def test_neutral_settings_are_the_plain_control(contexts):
    plain, _ = contexts("sampled", {})
    assert contexts("rsp", {"length": 0})[0].text.name == plain.text.name
    assert contexts("sink-pruned", {"ratio": 0})[0].text.name == plain.text.name
    assert contexts("draft-eu", {})[0].text.name == plain.text.name


@pytest.mark.parametrize(
    "generation",
    [
        {"temperature": 0.7}, {"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"typical_p": 0.9},
        {"repetition_penalty": 1.1}, {"max_gen_toks": 13}, {"until": ["\n"]}, {"do_sample": False},
    ],
    ids=lambda generation: next(iter(generation)),
)  # fmt: skip
def test_generation_settings_change_the_key(contexts, generation):
    assert (
        contexts("sampled", {})[0].text.name != contexts("sampled", {}, **generation)[0].text.name
    )


def test_settings_of_the_harness_change_the_key(contexts):
    plain = contexts("sampled", {})[0].text.name
    for arguments in ({"max_length": 100}, {"think_end_token": "</think>"}):
        assert contexts("sampled", arguments)[0].text.name != plain


def test_one_bit_of_one_weight_changes_the_fingerprint(random_model):
    model = random_model("llama")
    before = model_fingerprint(model)
    assert model_fingerprint(model) == before
    weight = model.model.layers[1].mlp.up_proj.weight.data
    bits = weight.view(torch.int32)
    bits[3, 5] ^= 1
    changed = model_fingerprint(model)
    bits[3, 5] ^= 1
    assert changed != before
    assert model_fingerprint(model) == before
    model.config.rms_norm_eps *= 2
    assert model_fingerprint(model) != before
    model.config.rms_norm_eps /= 2


def flipped(values, start, step):
    signs = torch.ones_like(values).reshape(-1)
    signs[start::step] = -1
    return values * signs.reshape(values.shape)


def test_flipped_signs_change_the_fingerprint(random_model):
    """The upper half of a 64-bit word holds a sign: two flips must not add up to nothing."""
    model = random_model("llama")
    before = model_fingerprint(model)
    weight = model.model.layers[1].mlp.up_proj.weight.data
    assert weight[:, 1::2].numel() % 2 == 0
    weight[:, 1::2] *= -1
    changed = model_fingerprint(model)
    weight[:, 1::2] *= -1
    assert changed != before
    assert model_fingerprint(model) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("values", ["normal", "equal"])
def test_checksum_sees_any_set_of_signs(dtype, values):
    torch.manual_seed(0)
    n = 512
    plain = (torch.randn(n) if values == "normal" else torch.ones(n)).to(dtype)
    found = {tensor_checksum(plain), tensor_checksum(-plain)}
    patterns = [(start, step) for step in range(2, 40) for start in range(step)]
    found |= {tensor_checksum(flipped(plain, *pattern)) for pattern in patterns}
    assert len(found) == len(patterns) + 2


def test_checksum_by_hand():
    """SplitMix64's multipliers on words with their places, in Python's whole numbers."""
    torch.manual_seed(0)
    values = torch.randn(2 * 2**16 + 3)  # more than a step, and no whole word at the end
    data = values.numpy().tobytes() + bytes(4)
    total = 0
    for place in range(len(data) // 8):
        word = int.from_bytes(data[8 * place :][:8], "little") + place * 0x9E3779B97F4A7C15
        for multiplier in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 1):
            word %= 2**64
            word = (word ^ word >> 32) * multiplier
        total += word
    assert tensor_checksum(values) % 2**64 == total % 2**64
    assert tensor_checksum(torch.empty(0)) == 0


def test_adapters_and_dtype_change_the_fingerprint(random_model):
    import copy

    peft = pytest.importorskip("peft")
    model = copy.deepcopy(random_model("llama"))
    before = model_fingerprint(model)
    assert model_fingerprint(copy.deepcopy(model).bfloat16()) != before
    fingerprints = {before}
    for alpha in (8, 16):  # the factor is in no tensor
        config = peft.LoraConfig(r=2, lora_alpha=alpha, target_modules=["q_proj"])
        torch.manual_seed(0)
        fingerprints.add(model_fingerprint(peft.get_peft_model(copy.deepcopy(model), config)))
    assert len(fingerprints) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.float64])
def test_checksum_sees_order_and_place(dtype):
    torch.manual_seed(0)
    values = (torch.randn(1001) * 50).to(dtype)
    found = {tensor_checksum(values), tensor_checksum(values.flip(0))}
    found |= {tensor_checksum(torch.cat([values[:k], values[:1], values[k:]])) for k in (7, 500)}
    swapped = values.clone()
    swapped[0], swapped[8] = values[8], values[0]
    assert len(found | {tensor_checksum(swapped)}) == 5
    two_dimensional = values[:1000].reshape(40, 25)
    assert tensor_checksum(two_dimensional.t().contiguous().t()) == tensor_checksum(two_dimensional)
    # Views need not begin on a word.
    assert tensor_checksum(values[3:]) == tensor_checksum(values[3:].clone())


def test_tokenizer_counts(random_model, tiny_tokenizer):
    import copy

    other = copy.deepcopy(tiny_tokenizer)
    other.chat_template = "{{ messages }} "
    one = fingerprints(random_model("llama"), tiny_tokenizer)
    tiny_tokenizer(["a", "a b c"], padding=True)  # leaves a trace in the tokenizer's state
    assert fingerprints(random_model("llama"), tiny_tokenizer) == one
    assert fingerprints(random_model("llama"), other)["tokenizer"] != one["tokenizer"]


def test_store_is_an_argument_of_every_wrapper(wrappers):
    assert all(issubclass(wrapper, AttemptSampling) for wrapper in wrappers.values())
    assert "store" in inspect.signature(AttemptSampling.__init__).parameters
