"""What transformers loads from the folder is what is in the GGUF file."""

import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_eval_ext.errors import UserError
from lm_eval_ext.models.fetching.conversion import convert, require_gguf


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_files, small_entry):
    folder = tmp_path_factory.mktemp("converted") / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"half")  # of an interrupted conversion
    (folder / "left over.json").touch()
    convert(small_entry, small_files[0], folder)
    return folder


def test_weights_and_settings_are_those_of_the_file(folder, small_files):
    gguf = small_files[0]
    expected = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    ).eval()
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert model.dtype == torch.float32
    assert not hasattr(model.config, "quantization_config")
    tokens = torch.tensor([[1, 5, 9, 20, 3]])
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, expected(tokens).logits)
    assert (model.generation_config.eos_token_id, model.config.bos_token_id) == (2, 1)


def test_nothing_of_an_interrupted_conversion_stays(folder):
    assert not (folder / "left over.json").exists()
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_every_digit_is_a_token_of_its_own(folder, small_files):
    gguf = small_files[0]
    without = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("ab  12") == ["a", "b", "ĠĠ", "1", "2"]
    assert without.tokenize("ab  12") == ["a", "b", "Ġ", "Ġ", "1", "2"]
    assert tokenizer.tokenize("ab 7 c") == without.tokenize("ab 7 c")
    assert tokenizer.decode(tokenizer("ab  12")["input_ids"]) == "ab  12"
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "a"


def test_other_weights_than_the_known_ones_are_refused(tmp_path, small_files, small_entry):
    with pytest.raises(UserError, match=r"makes other weights of small.*constraints.txt$"):
        convert(small_entry._replace(weights="0" * 32), small_files[0], tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_missing_package_is_one_line(monkeypatch):
    require_gguf()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"pip install 'lm-eval-ext\[fetch\]'$"):
        require_gguf()
