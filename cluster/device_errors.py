"""Tell a GPU's errors apart by class name and text: memory ran out, or the process can no longer use its GPU.

Without torch: a worker that runs other jobs need not import it. Names and texts are those of torch 2.11 to 2.14, CUDA
12 and 13, cuBLAS and cuDNN.
"""

import re
from collections.abc import Iterator

_MEMORY_CLASS = "OutOfMemoryError"
# cuDNN finds no engine where no workspace fits; cuBLAS cannot make its handle.
_MEMORY_TEXT = re.compile(
    r"CUDA(?: driver)? error: out of memory|CUDA out of memory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY"
    r"|unable to find an engine to execute this computation|(?:CUDNN|CUBLAS|CUSOLVER)_STATUS_ALLOC_FAILED"
)
_BROKEN_CLASSES = ("AcceleratorError", "CudaError", "GraphRecordingError")
_BROKEN_TEXT = re.compile(
    r"CUDA(?: driver)? error|cudaError|CUDA_ERROR|device-side assert"
    r"|(?:CUDNN|CUBLAS|CUSOLVER|CUSPARSE|CUFFT|NVRTC)_STATUS"
)


def is_memory_shortage(error: BaseException | None) -> bool:
    """Return whether an exception, or one behind it, says that the GPU's memory ran out."""
    return any(_matches(cause, (_MEMORY_CLASS,), _MEMORY_TEXT) for cause in _walk_causes(error))


def is_broken_device(error: BaseException | None) -> bool:
    """Return whether an exception says that the process can no longer use its GPU, so that every later job fails."""
    # After an illegal access or a failed assertion every CUDA call of the process fails, and only its end helps. Memory
    # that ran out has the same texts, but its own remedy: fewer workers.
    return not is_memory_shortage(error) and any(
        _matches(cause, _BROKEN_CLASSES, _BROKEN_TEXT) for cause in _walk_causes(error)
    )


def _matches(error: BaseException, classes: tuple[str, ...], text: re.Pattern[str]) -> bool:
    # Text counts only in the class that CUDA's errors have: a user's ValueError may quote one.
    if any(kind.__name__ in classes for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and text.search(str(error)) is not None


def _walk_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that led to it, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
