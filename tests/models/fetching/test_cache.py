"""Where fetched models lie, and what is said of one that is missing or not whole."""

import json
import os
import subprocess
import sys

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.models.fetching import FETCHED, MANIFEST, cache_folder, fetched_path, what_is_wrong
from lm_eval_ext.models.fetching.command import fetch

CACHES = [
    ({}, "{home}/.cache/huggingface/assets/lm-eval-ext"),
    ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/assets/lm-eval-ext"),
    ({"HF_HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/h/assets/lm-eval-ext"),
    ({"HF_ASSETS_CACHE": "/a", "HF_HOME": "/h"}, "/a/lm-eval-ext"),
    ({"LM_EVAL_EXT_CACHE": "/own", "HF_HOME": "/h"}, "/own"),
    ({"LM_EVAL_EXT_CACHE": "~/own"}, "{home}/own"),
    ({"LM_EVAL_EXT_CACHE": ""}, "{home}/.cache/huggingface/assets/lm-eval-ext"),
]
# The Hub's package reads its variables when it is imported.
PRINT_CACHES = """
import importlib, json, os, sys
from huggingface_hub import constants
from lm_eval_ext.models.fetching import cache_folder
kept = dict(os.environ)
for variables in json.loads(sys.argv[1]):
    os.environ.clear()
    os.environ.update(kept, **variables)
    importlib.reload(constants)
    print(cache_folder())
"""


def test_the_cache_follows_the_hub_and_xdg(tmp_path):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_", "LM_EVAL_EXT"))}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_CACHES, json.dumps([variables for variables, _ in CACHES])],
        env={**kept, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [folder.format(home=tmp_path) for _, folder in CACHES]
    assert done.stdout.split() == expected


@pytest.mark.parametrize("name", FETCHED)
def test_a_model_that_is_not_fetched_names_the_command(cache, name):
    with pytest.raises(UserError, match=f"^drafts={name}: .*; run lm-eval-ext fetch {name}$"):
        fetched_path(name, argument="drafts")


def test_what_is_whole_is_found(cache, small_files):
    assert str(fetch("small", given=small_files[0])) == fetched_path("small") == f"{cache}/small"
    assert what_is_wrong("small", cache_folder() / "small") is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "model.safetensors").unlink(), r"model.safetensors is damaged \(missing"),
        (lambda f: os.truncate(f / "model.safetensors", 1000), "1,000 bytes instead of "),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json is damaged"),
        (lambda f: (f / MANIFEST).write_text('{"sha'), "cannot be read"),
        (lambda f: (f / MANIFEST).write_text("[]"), "cannot be read"),
        (lambda f: change(f, sha256="0" * 64), "made by another version"),
        (lambda f: change(f, conversion=0), "made by another version"),
    ],
)
def test_damage_is_said_and_mended(cache, small_files, damage, said):
    folder = fetch("small", given=small_files[0])
    damage(folder)
    with pytest.raises(UserError, match=f"^pretrained=small: .*{said}.*; run lm-eval-ext fetch"):
        fetched_path("small")
    fetch("small", given=small_files[0])
    assert fetched_path("small") == str(folder)


def change(folder, **values):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **values}))
