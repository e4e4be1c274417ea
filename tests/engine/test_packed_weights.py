"""Packed weights give the numbers of plain ones, are never stale, and go when they should."""

import copy
import gc
import os
import weakref

import pytest

PASSES = 100


@pytest.fixture(scope="module")
def packed_weights():
    """Return the module, where this build of PyTorch has the operators."""
    from lm_eval_ext.engine import packed_weights as module

    if not module._operators_work():
        pytest.skip("this build of PyTorch has no packed products")
    return module


@pytest.fixture
def model():
    """Return a model whose layers are large enough to be packed, the head tied."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=600,
        hidden_size=512,
        intermediate_size=768,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=8,
        initializer_range=0.05,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def _linear(rows=520, columns=530, *, bias=False, **arguments):
    import torch

    torch.manual_seed(1)
    return torch.nn.Linear(columns, rows, bias=bias, **arguments).eval()


def _logits(model, n_rows=8, n_tokens=3):
    import torch

    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(600, (n_rows, n_tokens), generator=draws)
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits


def _n_copies(module, model):
    return sum(
        layer in module._copies and module._copies[layer].packed is not None
        for layer in module._layers(model)
    )


@pytest.mark.parametrize(
    ("n_rows", "n_tokens"), [(1, 1), (3, 1), (4, 1), (5, 1), (16, 1), (64, 1), (2, 40), (3, 400)]
)
def test_the_logits_are_those_of_plain_weights(packed_weights, model, n_rows, n_tokens):
    plain = _logits(model, n_rows, n_tokens)
    with packed_weights.packed_weights(model, rows=64, passes=PASSES):
        packed = _logits(model, n_rows, n_tokens)
    assert (packed - plain).abs().max() < 1e-4
    assert _n_copies(packed_weights, model) == (15 if n_rows * n_tokens >= 4 else 0)


@pytest.mark.parametrize("bias", [False, True])
def test_inputs_of_any_layout(packed_weights, bias):
    import torch

    layer = _linear(bias=bias)
    whole = torch.randn(6, 3, 530)
    with torch.no_grad():
        for inputs in (whole, whole[:, 1], whole.transpose(0, 1), whole[::2], whole[0]):
            plain = layer(inputs)
            with packed_weights.packed_weights(layer, rows=64, passes=PASSES):
                packed = layer(inputs)
            assert packed.shape == plain.shape
            assert (packed - plain).abs().max() < 1e-4
        with (
            packed_weights.packed_weights(layer, rows=64, passes=PASSES),
            pytest.raises(RuntimeError, match="shape"),
        ):
            layer(torch.randn(8, 529))


def test_the_embedding_of_a_tied_head_stays(packed_weights, model):
    table = model.get_input_embeddings().weight
    with packed_weights.packed_weights(model, rows=64, passes=PASSES):
        _logits(model)
    assert model.get_input_embeddings().weight is table is model.lm_head.weight
    assert model.lm_head in packed_weights._copies


def test_layers_are_left_as_they_were_after_errors_too(packed_weights, model):
    before = [dict(vars(module)) for module in model.modules()]
    context = packed_weights.packed_weights(model, rows=64, passes=PASSES)
    with pytest.raises(IndexError), context:
        _logits(model, n_tokens=0)
    assert [dict(vars(module)) for module in model.modules()] == before


def test_contexts_within_contexts(packed_weights, model):
    with packed_weights.packed_weights(model, rows=64, passes=PASSES):
        with packed_weights.packed_weights(model):
            inner = _logits(model)
        assert "forward" in vars(model.lm_head)
    assert "forward" not in vars(model.lm_head)
    assert (inner - _logits(model)).abs().max() < 1e-4


def _add_in_place(weight):
    import torch

    with torch.no_grad():
        weight.add_(0.1)


def _add_to_data(weight):  # as an adapter is merged: neither address nor version change
    weight.data += 0.1


def _change_one_number(weight):
    weight.data[3, 5] += 1.0


def _swap_two_rows(weight):
    weight.data[[0, 1]] = weight.data[[1, 0]]


def _replace_data(weight):
    weight.data = weight.data + 0.1


def _load(weight):
    import torch

    with torch.no_grad():
        weight.copy_(torch.full_like(weight, 0.01))


@pytest.mark.parametrize(
    "change",
    [_add_in_place, _add_to_data, _change_one_number, _swap_two_rows, _replace_data, _load],
)
def test_changed_weights_are_packed_again(packed_weights, model, change):
    with packed_weights.packed_weights(model, rows=64, passes=PASSES):
        before = _logits(model)
    change(model.model.layers[1].mlp.up_proj.weight)
    plain = _logits(model)
    with packed_weights.packed_weights(model, rows=64, passes=PASSES):
        packed = _logits(model)
    assert (before - plain).abs().max() > 1e-3
    assert (packed - plain).abs().max() < 1e-4


@pytest.mark.parametrize("change", [_add_in_place, _replace_data, _load])
def test_weights_that_change_within_a_context(packed_weights, model, change):
    with packed_weights.packed_weights(model, rows=64, passes=PASSES):
        _logits(model)
        change(model.model.layers[0].self_attn.o_proj.weight)
        packed = _logits(model)
    assert (packed - _logits(model)).abs().max() < 1e-4


def test_unchanged_weights_are_not_packed_again(packed_weights, model):
    with packed_weights.packed_weights(model, rows=64, passes=PASSES):
        _logits(model)
    before = packed_weights._copies[model.lm_head]
    with packed_weights.packed_weights(model, rows=64, passes=PASSES):
        _logits(model)
    assert packed_weights._copies[model.lm_head] is before


def test_hooks_run(packed_weights, model):
    projection = model.model.layers[0].self_attn.o_proj

    def mask(module, args):  # as heads are pruned
        states = args[0].clone()
        states[..., :64] = 0
        return (states,)

    handles = [
        projection.register_forward_pre_hook(mask),
        projection.register_forward_hook(lambda module, args, output: output + 0.5),
    ]
    plain = _logits(model)
    with packed_weights.packed_weights(model, rows=64, passes=PASSES):
        packed = _logits(model)
        for handle in handles:
            handle.remove()
        without = _logits(model)
    assert (packed - plain).abs().max() < 1e-4
    assert (without - plain).abs().max() > 1e-3
    assert (without - _logits(model)).abs().max() < 1e-4


class _Other:
    """Layers that compute as ever."""

    @staticmethod
    def small():
        return _linear(100, 100)

    @staticmethod
    def bfloat16():
        import torch

        return _linear(dtype=torch.bfloat16)

    @staticmethod
    def float64():
        import torch

        return _linear(dtype=torch.float64)

    @staticmethod
    def meta():
        return _linear(device="meta")

    @staticmethod
    def subclass():
        import torch

        class Quantised(torch.nn.Linear):
            pass

        return Quantised(530, 520).eval()

    @staticmethod
    def parametrised():
        import torch

        return torch.nn.utils.parametrizations.weight_norm(_linear()).eval()

    @staticmethod
    def own_forward():
        layer = _linear()
        layer.forward = lambda inputs: inputs
        return layer

    @staticmethod
    def transposed():
        import torch

        layer = _linear()
        layer.weight = torch.nn.Parameter(torch.randn(530, 520).T)
        return layer

    @staticmethod
    def training():
        return _linear().train()

    @staticmethod
    def inference_tensor():
        import torch

        with torch.inference_mode():
            return _linear()


@pytest.mark.parametrize("kind", [name for name in vars(_Other) if not name.startswith("_")])
def test_layers_that_are_left_alone(packed_weights, kind):
    layer = getattr(_Other, kind)()
    before = dict(vars(layer))
    with packed_weights.packed_weights(layer, rows=64, passes=PASSES):
        assert dict(vars(layer)) == before
    assert packed_weights.bytes_to_pack(layer) == 0 or kind == "training"


def test_gradients_and_casts_take_the_plain_product(packed_weights):
    import torch

    layer, inputs = _linear(), torch.randn(8, 530)
    with packed_weights.packed_weights(layer, rows=64, passes=PASSES):
        layer(inputs).sum().backward()
        assert layer.weight.grad is not None
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(inputs).dtype is torch.bfloat16
    assert layer not in packed_weights._copies


@pytest.mark.parametrize(("rows", "passes"), [(1, 100), (3, 100), (2000, 100), (64, 7), (0, 0)])
def test_nothing_is_packed_where_it_does_not_pay(packed_weights, model, rows, passes):
    with packed_weights.packed_weights(model, rows=rows, passes=passes):
        _logits(model)
    assert _n_copies(packed_weights, model) == 0


def test_builds_without_the_operators(monkeypatch, model):
    from lm_eval_ext.engine import packed_weights as module

    def missing(weight):
        raise AttributeError("no such operator")

    monkeypatch.setattr(module, "_reordered", missing)
    monkeypatch.setattr(module, "_operators_work", module._operators_work.__wrapped__)
    plain = _logits(model)
    with module.packed_weights(model, rows=64, passes=PASSES):
        assert (_logits(model) == plain).all()
    assert module.bytes_to_pack(model) == 0


def test_operators_that_give_other_numbers_are_not_used(monkeypatch, packed_weights, model):
    right = packed_weights._product
    monkeypatch.setattr(packed_weights, "_product", lambda *args: right(*args) + 0.01)
    assert not packed_weights._operators_work.__wrapped__()


def test_memory_that_does_not_suffice(monkeypatch, packed_weights, model):
    def full(weight):
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(packed_weights, "_reordered", full)
    plain = _logits(model)
    with packed_weights.packed_weights(model, rows=64, passes=PASSES):
        assert (_logits(model) == plain).all()


def test_copies_are_counted_until_they_are_made(packed_weights, model, monkeypatch):
    weights = 4 * sum(layer.weight.numel() for layer in packed_weights._layers(model))
    assert weights <= packed_weights.bytes_to_pack(model) < 1.2 * weights
    with packed_weights.packed_weights(model, rows=64, passes=PASSES):
        _logits(model)
    assert packed_weights.bytes_to_pack(model) == 0
    packed_weights.release_packed_weights(model)
    assert _n_copies(packed_weights, model) == 0
    assert packed_weights.bytes_to_pack(model) >= weights

    class Little:
        available = weights

    monkeypatch.setattr(packed_weights.psutil, "virtual_memory", Little)
    assert packed_weights.bytes_to_pack(model) == 0
    with packed_weights.packed_weights(model, rows=64, passes=PASSES):
        _logits(model)
    assert _n_copies(packed_weights, model) == 0


def test_fewer_rows_fit_while_the_weights_are_not_packed(
    packed_weights, model, make_requests, monkeypatch
):
    from lm_eval_ext.engine import memory

    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**26)
    requests = make_requests(10, 64)
    before = memory.fitting_rows(model, requests, max_new_tokens=100)
    with packed_weights.packed_weights(model, rows=64, passes=PASSES):
        _logits(model)
    assert 1 < before < memory.fitting_rows(model, requests, max_new_tokens=100)


def test_copies_go_with_their_model(packed_weights, model):
    with packed_weights.packed_weights(model, rows=64, passes=PASSES):
        _logits(model)
    before = len(packed_weights._copies)
    other = copy.deepcopy(model)
    assert len(packed_weights._copies) == before
    head = weakref.ref(other.lm_head)
    with packed_weights.packed_weights(other, rows=64, passes=PASSES):
        _logits(other)
    del other
    gc.collect()
    assert head() is None
    assert len(packed_weights._copies) == before


def test_a_model_copied_within_a_context_calls_itself(packed_weights, model):
    with packed_weights.packed_weights(model, rows=64, passes=PASSES):
        _logits(model)
        other = copy.deepcopy(model)
        _add_to_data(other.model.layers[0].mlp.up_proj.weight)
        copied = _logits(other)
    assert (copied - _logits(model)).abs().max() > 1e-3


@pytest.mark.parametrize("max_rows", [1, 5, 24])
def test_both_decoders_give_the_tokens_of_plain_weights(
    packed_weights, model, make_requests, decode, max_rows, monkeypatch
):
    from functools import partial

    from lm_eval_ext.engine.decoding import Decoder
    from lm_eval_ext.engine.fallback import FallbackDecoder

    for decoder in (Decoder, partial(FallbackDecoder, expand_cache=True)):
        packed_weights.release_packed_weights(model)
        packed = decode(decoder, model, make_requests(), max_rows=max_rows)
        assert _n_copies(packed_weights, model) == (0 if max_rows == 1 else 15)
        assert "forward" not in vars(model.lm_head)
        packed_weights.release_packed_weights(model)
        with monkeypatch.context() as patch:
            patch.setattr(packed_weights, "_operators_work", lambda: False)
            plain = decode(decoder, model, make_requests(), max_rows=max_rows)
        assert _n_copies(packed_weights, model) == 0
        assert [packed[i].token_ids for i in packed] == [plain[i].token_ids for i in packed]


def test_teacher_forcing(packed_weights, model, make_requests):
    import torch

    from lm_eval_ext.engine.teacher_forcing import teacher_forced_logits

    requests = make_requests(8, 2)
    continuations = [(7, 8, 9)] * len(requests)
    plain = list(teacher_forced_logits(model, requests, continuations, max_rows=16))
    assert _n_copies(packed_weights, model) == 0
    packed = list(teacher_forced_logits(model, requests, continuations, max_rows=2))
    assert _n_copies(packed_weights, model) == 15
    assert (torch.stack(packed) - torch.stack(plain)).abs().max() < 1e-4


def test_perturbed_weights(packed_weights, model):
    import torch

    from lm_eval_ext.methods.epistemic.weight_perturbation import WeightPerturbation

    perturbation = WeightPerturbation(model, modules=["q_proj", "v_proj"])
    draw = perturbation.draw(torch.Generator().manual_seed(0))
    clean = _logits(model)
    with perturbation.applied(draw):
        plain = _logits(model)
    with packed_weights.packed_weights(model, rows=64, passes=PASSES), perturbation.applied(draw):
        packed = _logits(model)
    assert (packed - plain).abs().max() < 1e-4
    assert (packed - clean).abs().max() > 1e-3


def test_a_merged_adapter(packed_weights, model):
    peft = pytest.importorskip("peft")
    import torch

    with packed_weights.packed_weights(model, rows=64, passes=PASSES):
        before = _logits(model)
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(target_modules=["up_proj"], init_lora_weights=False)
    ).eval()
    plain = _logits(adapted)
    with packed_weights.packed_weights(adapted, rows=64, passes=PASSES):
        assert (_logits(adapted) - plain).abs().max() < 1e-4
    merged = adapted.merge_and_unload().eval()
    with torch.no_grad(), packed_weights.packed_weights(merged, rows=64, passes=PASSES):
        assert (_logits(merged) - plain).abs().max() < 1e-4
    assert (before - plain).abs().max() > 1e-3


def test_the_shipped_models_have_nothing_to_pack():
    from transformers import AutoModelForCausalLM

    from lm_eval_ext.engine import packed_weights as module
    from lm_eval_ext.models.shipped import model_path

    model = AutoModelForCausalLM.from_pretrained(model_path("tiny")).eval()
    with module.packed_weights(model, rows=64, passes=PASSES):
        assert not any("forward" in vars(layer) for layer in model.modules())
    assert module.bytes_to_pack(model) == 0


@pytest.mark.skipif("LM_EVAL_EXT_MODEL" not in os.environ, reason="LM_EVAL_EXT_MODEL is not set")
@pytest.mark.parametrize("n_rows", [4, 8, 16, 64])
def test_steps_of_a_real_model(packed_weights, n_rows):
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache

    path = os.environ["LM_EVAL_EXT_MODEL"]
    real = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(100, 20000, (n_rows, 9), generator=draws)
    steps = []
    with torch.inference_mode():
        for passes in (0, PASSES):
            cache = DynamicCache()
            real(input_ids=ids[:, :8], past_key_values=cache, use_cache=True)
            with packed_weights.packed_weights(real, rows=n_rows, passes=passes):
                steps.append(real(input_ids=ids[:, 8:], past_key_values=cache).logits)
    assert _n_copies(packed_weights, real) > 0
    assert (steps[0] - steps[1]).abs().max() < 1e-4
