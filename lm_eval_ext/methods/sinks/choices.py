"""The names among which pruning by sink scores chooses."""

from __future__ import annotations

from typing import Literal, get_args

Queries = Literal["all", "after_first"]
Window = Literal["zero", "visible"]
Unit = Literal["head", "kv_group", "block", "attention"]
Allocation = Literal["global", "even"]
UNITS: tuple[str, ...] = get_args(Unit)
ALLOCATIONS: tuple[str, ...] = get_args(Allocation)
