"""lm-eval's list of its own tasks, read once for all tests: thousands of files, 13 seconds of CPU.

``python tests/lm_eval_command/kept_index.py ARGUMENTS`` is ``lm_eval ARGUMENTS`` with the list that
is kept. It has a folder of its own: with ``tests`` among the paths of Python, ``tests/vllm``
would be taken for vLLM.
"""

import os
import pickle
import sys
import tempfile
from pathlib import Path

VARIABLE = "LM_EVAL_EXT_TEST_INDEX"
"""Names the file that a test session's processes share."""

LM_EVAL = (sys.executable, __file__)
"""Words that start ``lm_eval`` so; arguments follow."""


def keep_index():
    """Make lm-eval's own index come from the shared file; one with other folders is still read."""
    import lm_eval.tasks._index as module

    build, default = module.TaskIndex.build, Path(module.__file__).resolve().parent
    kept = None

    def build_once(paths, **options):
        nonlocal kept
        paths = list(paths)
        if options or [Path(path).resolve() for path in paths] != [default]:
            return build(paths, **options)
        if kept is None:
            kept = _read() or build(paths)
            _write(kept)
        return dict(kept)

    module.TaskIndex.build = staticmethod(build_once)


def _read():
    path = Path(os.environ[VARIABLE])
    return pickle.loads(path.read_bytes()) if path.exists() else None


def _write(index):
    path = Path(os.environ[VARIABLE])
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(pickle.dumps(index))
        os.replace(file.name, path)  # another process may read it at any time


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    if VARIABLE in os.environ:
        keep_index()
    cli_evaluate()
