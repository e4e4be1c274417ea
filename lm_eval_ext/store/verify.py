"""``lm-eval-ext store verify``: check every line of an attempt store."""

from __future__ import annotations

from lm_eval_ext.store.inspection import UNDESCRIBED, inspect
from lm_eval_ext.store.options import VerifyOptions

UNSOUND = 1
"""Exit status where something is wrong."""


def run(options: VerifyOptions) -> int:
    """Check the store; return 0 if it is sound, and 1 after naming what is not."""
    found = inspect(options.store)
    for path in found.cut_off:
        print(f"{path.name}: the last line is cut off; its attempt will be generated again")
    for line in found.damaged:
        print(line)
    n_undescribed = sum(found.undescribed.values())
    if n_undescribed:
        print(UNDESCRIBED.format(n_undescribed))
    sound = not found.damaged and not found.cut_off
    print(f"{found.n_attempts} attempts, {'all sound' if sound else 'not all lines are sound'}")
    return 0 if sound else UNSOUND
