"""The processes of one training run: one, or as many as `torchrun` started."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among its likes."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this one writes and talks."""
        return self.rank == 0

    @property
    def is_gpu(self) -> bool:
        """Whether the model lies on a GPU."""
        return self.device.type == "cuda"

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in each of them; the tensor itself where there is one."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


@contextlib.contextmanager
def join_world(device: str = "auto") -> Iterator[World]:
    """Find out what `torchrun` says, and meet the other processes.

    Args:
        device: `cpu`, `cuda`, or `auto` for a GPU where there is one.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    is_gpu = torch.cuda.is_available() if device == "auto" else device == "cuda"
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) if size > 1 else 0)
    if is_gpu:
        torch.cuda.set_device(place)
    world = World(rank=rank, size=size, device=place if is_gpu else torch.device("cpu"))
    if size > 1:
        dist.init_process_group("nccl" if is_gpu else "gloo")
    try:
        yield world
    finally:
        if size > 1:
            dist.destroy_process_group()
