"""Texts are those that torch, cuBLAS and cuDNN have printed."""

import pytest

from cluster.device_errors import is_broken_device, is_memory_shortage


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class AcceleratorError(RuntimeError):
    """Named as torch's."""


SHORTAGES = [
    OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    AcceleratorError("CUDA error: out of memory"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


class GraphRecordingError(RuntimeError):
    """Named as that of memscore.training.graph_recording."""


BREAKS = [
    GraphRecordingError("recording it failed: a user's own text"),
    AcceleratorError("CUDA error: an illegal memory access was encountered"),
    AcceleratorError("some later wording"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA driver error: unknown error"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
]
NEITHER = [
    ValueError("CUDA error: quoted by a user's own check"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    MemoryError("the host's"),
    KeyError("cudaError"),
]


@pytest.mark.parametrize("error", SHORTAGES, ids=str)
def test_memory_that_ran_out_is_a_shortage_and_no_broken_device(error):
    assert is_memory_shortage(error)
    assert not is_broken_device(error)


@pytest.mark.parametrize("error", BREAKS, ids=str)
def test_a_device_error_is_a_broken_device(error):
    assert is_broken_device(error)
    assert not is_memory_shortage(error)


@pytest.mark.parametrize("error", [*NEITHER, None], ids=str)
def test_other_errors_are_neither(error):
    assert not is_memory_shortage(error)
    assert not is_broken_device(error)


def test_the_error_behind_another_one_counts():
    # an allocation that fails in a capture: ending the capture fails too, and that error hides the first
    ending_failed = AcceleratorError("CUDA error: operation failed due to a previous error during capture")
    ending_failed.__context__ = OutOfMemoryError("CUDA out of memory")
    assert is_memory_shortage(ending_failed)
    assert not is_broken_device(ending_failed)


def test_causes_in_a_circle_end():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert not is_broken_device(first)
