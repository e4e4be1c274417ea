"""The short key/value cache of each attempt's own tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers.cache_utils import Cache, DynamicLayer

# A layer grows by at least this many columns, and by half its size, so that appending a token
# rarely copies the cache.
_MINIMUM_GROWTH = 32


class PrivateLayer(DynamicLayer):
    """One layer's keys and values, growing in place.

    ``keys`` and ``values`` are views of shape (n_rows, heads, n_columns, head_dim) into buffers
    with spare columns; transformers' own `DynamicLayer` copies the whole cache at every token. The
    numbers of a key form a column of memory, which makes their product with few queries faster.
    """

    keys: torch.Tensor
    values: torch.Tensor
    _key_buffer: torch.Tensor  # (n_rows, heads, head_dim, columns)
    _value_buffer: torch.Tensor  # (n_rows, heads, columns, head_dim)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append columns and return all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._hold(key_states.transpose(-1, -2).contiguous(), value_states.contiguous())
            return self.keys, self.values
        old = self.keys.shape[-2]
        new = old + key_states.shape[-2]
        if new > self._value_buffer.shape[-2]:
            spare = max(_MINIMUM_GROWTH, old // 2, new - old)
            self._key_buffer = _padded(self._key_buffer[..., :old], -1, right=spare)
            self._value_buffer = _padded(self.values, -2, right=spare)
        self._key_buffer[..., old:new] = key_states.transpose(-1, -2)
        self._value_buffer[..., old:new, :] = value_states
        self._show(new)
        return self.keys, self.values

    def _hold(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self._key_buffer, self._value_buffer = keys, values
        self._show(values.shape[-2])

    def _show(self, n_columns: int) -> None:
        self.keys = self._key_buffer[..., :n_columns].transpose(-1, -2)
        self.values = self._value_buffer[..., :n_columns, :]

    def keep(self, rows: torch.Tensor, first_column: int) -> None:
        """Keep the given rows and the columns from `first_column` on."""
        rows = rows.to(self.keys.device)
        self._hold(
            self.keys.transpose(-1, -2)[..., first_column:].index_select(0, rows),
            self.values[..., first_column:, :].index_select(0, rows),
        )

    def append_rows(self, other: PrivateLayer) -> None:
        """Append the rows of another layer, both aligned at their last column."""
        width = max(self.keys.shape[-2], other.keys.shape[-2])
        keys, values = [], []
        for layer in (self, other):
            left = width - layer.keys.shape[-2]
            keys.append(_padded(layer.keys.transpose(-1, -2), -1, left=left))
            values.append(_padded(layer.values, -2, left=left))
        self._hold(torch.cat(keys), torch.cat(values))


class PrivateCache(Cache):
    """Keys and values of the attempts' own tokens, aligned at the last column.

    All rows write to the same column; a row that joined later has padding on its left, up to its
    entry in `starts`, int64 of shape (n_rows,) on the CPU.
    """

    def __init__(self, starts: Sequence[int] | torch.Tensor) -> None:
        super().__init__(layer_class_to_replicate=PrivateLayer)
        self.starts = torch.as_tensor(starts, dtype=torch.int64)

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self.get_seq_length())

    def keep(self, rows: torch.Tensor) -> None:
        """Keep the given rows, and drop the columns none of them uses."""
        self.starts = self.starts[rows]
        first_column = int(self.starts.min()) if len(rows) else 0
        self.starts = self.starts - first_column
        for layer in self.layers:
            layer.keep(rows, first_column)

    def beginnings(self, rows: torch.Tensor, lengths: torch.Tensor) -> PrivateCache:
        """Return a copy of some rows, shape (n,), each cut to the first `lengths` columns.

        A negative length marks an empty row that still needs that many columns of padding.
        """
        width = max(0, int(lengths.max()))
        starts = width - lengths
        other = PrivateCache(starts)
        if not width:
            return other
        # Padding on the left may be any column: the row's start hides it.
        columns = self.starts[rows][:, None] + torch.arange(width) - starts[:, None]
        columns = columns.clamp(0, self.width - 1)
        for index, layer in enumerate(self.layers):
            row, column = rows[:, None].to(layer.keys.device), columns.to(layer.keys.device)
            keys, values = (
                states[row, :, column].transpose(1, 2) for states in (layer.keys, layer.values)
            )
            other.update(keys, values, index)
        return other

    def append_rows(self, other: PrivateCache) -> None:
        """Append another cache's rows."""
        width = max(self.width, other.width)
        self.starts = torch.cat(
            [self.starts + (width - self.width), other.starts + (width - other.width)]
        )
        for layer, other_layer in zip(self.layers, other.layers, strict=True):
            layer.append_rows(other_layer)


def _padded(states: torch.Tensor, dimension: int, *, left: int = 0, right: int = 0) -> torch.Tensor:
    """Add columns of zeros to the last dimension but one, or to the last."""
    added = (left, right) if dimension == -1 else (0, 0, left, right)
    return torch.nn.functional.pad(states, added)
