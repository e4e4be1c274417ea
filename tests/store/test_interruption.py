"""What a process says below the traceback that ends it."""

import sys
from types import SimpleNamespace

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.store import interruption


@pytest.fixture
def hook(monkeypatch):
    """Return a function that ends a process with an error, its store having gained attempts."""
    monkeypatch.setattr(interruption, "_stores", [])
    monkeypatch.setattr(sys, "excepthook", lambda *error: print(error[1], file=sys.stderr))

    def end(error, n_appended):
        class Store(SimpleNamespace):
            def __len__(self):
                return 7

        interruption.announce_at_failure(Store(folder="attempts", n_appended=n_appended))
        sys.excepthook(type(error), error, None)

    return end


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("lost"), UserError("limit=1")])
@pytest.mark.parametrize("n_appended", [0, 3])
def test_only_who_has_added_something_says_how_to_resume(hook, capsys, error, n_appended):
    hook(error, n_appended)
    said = capsys.readouterr().err
    assert said.startswith(str(error))
    assert ("holds 7 attempts, 3 of them" in said) == (n_appended == 3)
    assert ("the same command resumes there" in said) == (n_appended == 3)


def test_what_the_store_says_is_not_said_twice(hook, capsys):
    hook(UserError("store=attempts: No space left on device"), 3)
    assert "goes on" not in capsys.readouterr().err
