"""What a dataset of stored clips holds, in little memory: an `Entry` is made when it is asked for.

A worker process gets a copy of the dataset, and 50,000 small objects take a while to copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from train.data.dataset import Entry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Entries(Sequence[Entry]):
    """Samples by column."""

    __slots__ = ("_city_ids", "_groups", "_names")

    def __init__(
        self,
        names: Sequence[str],
        city_ids: NDArray[np.int32],
        groups: Sequence[str] | None = None,
    ) -> None:
        """Keep the columns; without groups every sample is a group of its own.

        Raises:
            ValueError: columns of different lengths.
        """
        if not len(names) == len(city_ids) == len(names if groups is None else groups):
            raise ValueError(f"{len(names)} names, {len(city_ids)} cities, and not as many groups")
        self._names = tuple(names)
        self._city_ids = city_ids
        self._groups = self._names if groups is None else tuple(groups)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        """One sample, or some as a list."""
        if isinstance(index, slice):
            return [self[position] for position in range(len(self))[index]]
        return Entry(
            name=self._names[index], city_id=int(self._city_ids[index]), group=self._groups[index]
        )

    def take(self, indices: Sequence[int]) -> Entries:
        """Some of the samples, in the order given."""
        return Entries(
            [self._names[index] for index in indices],
            self._city_ids[list(indices)],
            [self._groups[index] for index in indices],
        )
