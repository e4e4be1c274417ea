"""Turn a GGUF file into a folder that transformers loads in seconds."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

from lm_eval_ext.errors import UserError
from lm_eval_ext.models.fetching import CONVERSION, MANIFEST, FetchedModel


def require_gguf() -> None:
    """Raise a `UserError` where the package that reads GGUF files is not installed."""
    if importlib.util.find_spec("gguf") is None:
        raise UserError(
            "the conversion needs the package gguf, which is not installed: "
            "pip install 'lm-eval-ext[fetch]'"
        )


def convert(model: FetchedModel, gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file as float32 safetensors, with its tokenizer and manifest.

    Raises
    ------
    UserError
        If the installed versions make other weights of the file than the expected ones.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    from lm_eval_ext.models.fingerprint import weights_fingerprint

    transformers_logging.disable_progress_bar()
    if folder.exists():
        shutil.rmtree(folder)
    source: dict[str, Any] = {"gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
    # transformers does not save a model from a quantized file: its weights, plain by now, go into a
    # new one.
    if hasattr(loaded.config, "quantization_config"):
        del loaded.config.quantization_config
    plain = type(loaded)(loaded.config)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    weights = weights_fingerprint(plain.state_dict().items())
    if weights != model.weights:
        raise UserError(
            f"transformers {_version('transformers')} with gguf {_version('gguf')} makes other "
            f"weights of {model.file} ({weights} instead of {model.weights}): install the versions "
            "of constraints.txt"
        )
    plain.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    if model.splits_digits:
        _split_digits(tokenizer)
    tokenizer.save_pretrained(folder)
    _write_manifest(model, folder)


def _split_digits(tokenizer: Any) -> None:
    """Cut texts at every digit before anything else, as the published tokenizer does.

    Without it two spaces before a number become other tokens.
    """
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])


def _write_manifest(model: FetchedModel, folder: Path) -> None:
    mode = (folder / "config.json").stat().st_mode
    for path in folder.glob("*.safetensors"):
        path.chmod(mode)  # safetensors writes files that only their owner reads
    manifest = {
        "title": model.title,
        "license": model.license,
        "file": model.file,
        "sha256": model.sha256,
        "conversion": CONVERSION,
        "weights": model.weights,
        "made_with": {name: _version(name) for name in ("transformers", "gguf")},
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
    }
    text = json.dumps(manifest, indent=1) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def _version(distribution: str) -> str:
    return importlib.metadata.version(distribution)
