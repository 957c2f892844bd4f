"""How every benchmark writes what it measured: the numbers with the machine, the versions, n and the spread."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "numpy", "ray", "pyarrow", "scipy")


def machine() -> dict[str, Any]:
    """The processor, its cores, memory and load, and the versions that matter."""
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
        **{name: version(name) for name in PACKAGES},
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """n, median, smallest and largest."""
    return {
        "n": len(values),
        "median": float(np.median(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
    }


def save(name: str, measured: dict[str, Any]) -> Path:
    """Write results/<name>.json and say where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    when = datetime.now(UTC).date().isoformat()
    path.write_text(json.dumps({"machine": machine(), "date": when, **measured}, indent=2) + "\n")
    print(json.dumps(measured, indent=2))
    print(f"written to {path}")
    return path
