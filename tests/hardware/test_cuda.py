"""The calls of the CUDA runtime, with a real GPU: skipped where there is none."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from engines.base import EngineUnavailableError
from engines.cuda import Cuda, load_cuda


@pytest.fixture(scope="module")
def cuda() -> Cuda:
    try:
        return load_cuda()
    except EngineUnavailableError as exc:
        pytest.skip(str(exc).partition(". ")[0])


@pytest.mark.gpu
def test_what_was_copied_to_the_gpu_comes_back(cuda: Cuda) -> None:
    given = np.random.default_rng(0).integers(0, 256, 1 << 20, dtype=np.uint8)
    found = np.zeros_like(given)
    free_bytes, total_bytes = cuda.memory()
    assert 0 < free_bytes <= total_bytes
    stream, held = cuda.create_stream(), cuda.allocate(given.nbytes)
    try:
        cuda.copy_to_device(held, given.ctypes.data, given.nbytes, stream)
        cuda.copy_to_host(found.ctypes.data, held, found.nbytes, stream)
        cuda.synchronize(stream)
    finally:
        cuda.free(held)
        cuda.destroy_stream(stream)
    assert (found == given).all()


@pytest.mark.gpu
def test_work_that_was_recorded_is_done_anew_at_each_launch(cuda: Cuda) -> None:
    size = 1 << 16
    stream, held = cuda.create_stream(), cuda.allocate(size)
    given, found = cuda.allocate_host(size), cuda.allocate_host(size)
    source = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(given))
    target = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(found))
    try:
        with cuda.capture(stream) as recorded:
            cuda.copy_to_device(held, given, size, stream)
            cuda.copy_to_host(found, held, size, stream)
        for value in (7, 200):
            source[:] = value
            cuda.launch(recorded[0], stream)
            cuda.synchronize(stream)
            assert (target == value).all()
        cuda.destroy_graph(recorded[0])
    finally:
        cuda.free(held)
        cuda.free_host(given)
        cuda.free_host(found)
        cuda.destroy_stream(stream)


@pytest.mark.gpu
def test_a_gpu_says_what_it_is(cuda: Cuda) -> None:
    device = cuda.device
    assert device.name.isprintable()
    assert device.name.strip()
    assert device.capability >= (5, 0)
    assert device.multiprocessors > 0
    assert device.driver >= 11040
