"""Number of attempts and list of k."""

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.harness.attempt_settings import (
    AttemptSettings,
    read_settings,
    single_answer,
)


@pytest.mark.parametrize(
    ("metadata", "repeats", "expected"),
    [
        ({}, None, (16, (1, 2, 4, 8, 16))),
        ({}, 1, (16, (1, 2, 4, 8, 16))),
        ({}, 4, (4, (1, 2, 4))),
        ({"attempts": 1}, 4, (1, (1,))),
        ({"attempts": 6}, 1, (6, (1, 2, 4, 6))),
        ({"attempts": 64, "ks": [64, 1, 8, 8]}, 16, (64, (1, 8, 64))),
        ({"ks": (3,), "pretrained": "x", "version": 1.0}, None, (16, (3,))),
    ],
)
def test_the_command_line_goes_before_the_task_and_the_task_before_the_default(
    metadata, repeats, expected
):
    settings = read_settings(metadata, repeats)
    assert (settings.attempts, settings.ks) == expected
    assert settings.vote_ks == (settings.attempts,)


def test_the_options_of_the_metrics_are_read_and_written():
    metadata = {"attempts": 8, "ks": [1, 8], "vote_ks": [8, 4], "tau": 0.5, "n_bins": 15}
    settings = read_settings(metadata)
    assert settings == AttemptSettings(8, (1, 8), (4, 8), 0.5, 15)
    assert read_settings(settings.to_metadata()) == settings


def test_a_single_answer_takes_nothing_from_the_attempts_of_other_tasks():
    settings = single_answer({"attempts": 8, "ks": [1, 8], "vote_ks": [8], "n_bins": 5})
    assert settings == AttemptSettings(1, (1,), (1,), 1.0, 5)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"attempts": 0}, r"attempts must be a whole number of at least 1, got 0"),
        ({"attempts": -1}, r"attempts must be .* got -1"),
        ({"attempts": 2.5}, r"attempts must be .* got 2\.5"),
        ({"attempts": "16"}, r"attempts must be .* got '16'"),
        ({"attempts": True}, r"attempts must be .* got True"),
        ({"ks": 8}, r"ks=8 must be a list"),
        ({"ks": "1,8"}, r"ks='1,8' must be a list"),
        ({"ks": []}, r"ks=\[\] must be a list"),
        ({"ks": [0, 1]}, r"every k in ks must be .* got 0"),
        ({"ks": [1.5]}, r"every k in ks must be .* got 1\.5"),
        ({"attempts": 4, "ks": [1, 8]}, r"k=8 of 4 attempts: raise attempts to 8"),
        ({"attempts": 4, "vote_ks": [8]}, r"vote_ks=\[8\] asks for k=8 of 4 attempts"),
        ({"tau": 0}, r"tau must be a number above 0, got 0"),
        ({"tau": "0.5"}, r"tau must be a number above 0, got '0\.5'"),
        ({"tau": float("inf")}, r"tau must be a number above 0, got inf"),
        ({"n_bins": 0}, r"n_bins must be a whole number"),
    ],
)
def test_invalid_settings_are_refused_in_one_line(metadata, message):
    with pytest.raises(ValueError, match=message) as error:
        read_settings(metadata)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("atempts", "attempts"),
        ("attemps", "attempts"),
        ("attempt", "attempts"),
        ("n_attempts", "attempts"),
        ("Attempts", "attempts"),
        ("ATTEMPTS", "attempts"),
        ("num_repeats", "attempts"),
        ("repeats", "attempts"),
        ("k", "ks"),
        ("vote_k", "vote_ks"),
        ("vote-ks", "vote_ks"),
        ("votes_ks", "vote_ks"),
        ("taus", "tau"),
        ("bins", "n_bins"),
        ("num_bins", "n_bins"),
        ("data-folder", "data_folder"),
        ("datafolder", "data_folder"),
    ],
)
@pytest.mark.parametrize("read", [read_settings, single_answer])
def test_a_name_that_is_nearly_ours_is_refused(read, name, meant):
    with pytest.raises(UserError, match=rf"metadata has {name}=.*: write {meant} ") as error:
        read({name: [4], "length": 8, "version": 1.0})
    assert "\n" not in str(error.value)
    read({name: [4]}, known={name, "pretrained"})  # an argument of the model


@pytest.mark.parametrize(
    "name",
    [
        "version", "pretrained", "length", "seed", "store", "temperature", "max_length", "dtype",
        "base_url", "num_concurrent", "position", "drafts", "ratio", "task", "description", "k",
        "subset", "data", "dataset", "max_seq_lengths", "batch_size", "tokenizer", "calibration",
    ],
)  # fmt: skip
def test_other_names_belong_to_others(name):
    assert read_settings({name: 4}) == read_settings({})
