"""The processes of one training run: one, or as many as `torchrun` started."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from train.errors import TrainError

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

    @contextlib.contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process does something before the others: it fetches what they then find."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


def find_device(device: str) -> torch.device:
    """`cpu`, `cuda`, or with `auto` a GPU where there is one.

    Raises:
        TrainError: another word, or a GPU where there is none.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise TrainError(f"--device {device!r}: allowed are cpu, cuda and auto.")
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainError(
            "--device cuda: torch finds no NVIDIA GPU here. Use --device cpu, or a build of torch "
            "for CUDA with its driver."
        )
    is_gpu = torch.cuda.is_available() and device != "cpu"
    return torch.device("cuda" if is_gpu else "cpu")


@contextlib.contextmanager
def join_world(device: str = "auto") -> Iterator[World]:
    """Find out what `torchrun` says, and meet the other processes.

    Args:
        device: `cpu`, `cuda`, or `auto` for a GPU where there is one.

    Raises:
        TrainError: another device, or one that is not here.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    is_gpu = find_device(device).type == "cuda"
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
