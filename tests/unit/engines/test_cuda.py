from __future__ import annotations

import pytest

from engines.base import EngineError, EngineUnavailableError
from engines.cuda import Cuda, load_cuda
from tests.gpu import FakeGpu


def test_a_device_is_described() -> None:
    device = Cuda(FakeGpu(name="Orin", capability=(8, 7)).library).device
    assert (device.name, device.capability, device.multiprocessors) == ("Orin", (8, 7), 8)
    assert (device.is_integrated, device.driver, device.runtime) == (True, 12060, 12060)
    assert str(device) == "Orin (sm_87, 8 multiprocessors)"


def test_without_the_second_form_of_properties_the_first_is_asked() -> None:
    library = FakeGpu(name="Thor").library
    library.cudaGetDeviceProperties = library.cudaGetDeviceProperties_v2  # as CUDA 13 has it
    del library.cudaGetDeviceProperties_v2
    assert Cuda(library).device.name == "Thor"


def test_memory_is_told_and_given_back() -> None:
    gpu = FakeGpu(memory_bytes=1000)
    cuda = Cuda(gpu.library)
    address = cuda.allocate(600)
    assert cuda.memory() == (400, 1000)
    cuda.free(address)
    assert cuda.memory() == (1000, 1000)


def test_an_error_carries_the_words_of_cuda_and_a_next_step() -> None:
    cuda = Cuda(FakeGpu(memory_bytes=1000).library)
    with pytest.raises(EngineError) as caught:
        cuda.allocate(2000)
    assert str(caught.value) == (
        "allocating 2,000 bytes on the device: CUDA says out of memory (error 2). "
        "Close other programs that use the GPU, or free memory."
    )


def test_an_error_while_recording_leaves_the_stream_usable() -> None:
    gpu = FakeGpu()
    cuda = Cuda(gpu.library)
    stream = cuda.create_stream()
    with pytest.raises(ValueError, match="oops"), cuda.capture(stream):
        raise ValueError("oops")
    assert not gpu.recordings
    with cuda.capture(stream) as recorded:
        pass
    cuda.launch(recorded[0], stream)


def test_no_library_is_no_engine() -> None:
    def load(path: str) -> object:
        raise OSError(f"{path}: cannot open shared object file")

    with pytest.raises(EngineUnavailableError, match=r"none of libcudart\.so") as caught:
        load_cuda(["libcudart.so.13", "libcudart.so.12"], load=load)
    assert caught.value.reason == "no CUDA runtime"


def test_a_library_without_a_gpu_says_what_cuda_says() -> None:
    with pytest.raises(EngineUnavailableError) as caught:
        load_cuda(["a", "b"], load=lambda _: FakeGpu(count_error=100).library)
    assert str(caught.value).startswith(
        "looking for a GPU: CUDA says no CUDA-capable device is detected (error 100). (a) Is there"
    )
    assert caught.value.reason == "no NVIDIA GPU that CUDA can use"


def test_a_library_newer_than_the_driver_gives_way_to_an_older_one() -> None:
    found = {"new": FakeGpu(count_error=35), "old": FakeGpu(name="Orin")}
    cuda = load_cuda(["new", "old"], load=lambda path: found[path].library)
    assert cuda.device.name == "Orin"


def test_a_library_for_something_else_is_passed_over() -> None:
    found = {"stub": object(), "real": FakeGpu(name="Orin").library}
    assert load_cuda(["stub", "real"], load=lambda path: found[path]).device.name == "Orin"
