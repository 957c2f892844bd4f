"""How every benchmark writes what it measured: the numbers with the machine, the versions, n and the spread."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "numpy", "ray", "pyarrow", "scipy")


def machine() -> dict[str, Any]:
    """The processors, their cores and load, and the versions that matter; null for a package that is not there."""
    import torch  # not at the top: half a gigabyte that a measurement of memory would count

    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "avx512_bf16": "avx512_bf16" in flags,
        "load_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **({"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda} if torch.cuda.is_available() else {}),
        **{name: find_version(name) for name in PACKAGES},
    }


def find_version(package: str) -> str | None:
    """Its version; a machine that only trains has no Ray."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def spread(values: Sequence[float]) -> dict[str, float]:
    """n, median, smallest and largest."""
    return {
        "n": len(values),
        "median": float(np.median(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
    }


def save(name: str, measured: dict[str, Any], *, folder: Path = RESULTS, quiet: bool = False) -> Path:
    """Write results/<name>.json and say where."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    when = datetime.now(UTC).date().isoformat()
    path.write_text(json.dumps({"machine": machine(), "date": when, **measured}, indent=2) + "\n")
    if not quiet:
        print(json.dumps(measured, indent=2))
        print(f"written to {path}")
    return path
