"""One margin of 1e6 and one of -1e6 among 12,800 hardly move an attack; an infinite one is refused by name."""

from pathlib import Path

import numpy as np

from tests.cases._support import CommandResult, read_aucs, require_success, run_case, run_command

ATTACKS = ("lira", "lira-paper", "lira-released-fixed")


def check(folder: Path) -> list[str]:
    rng, problems = np.random.default_rng(0), []
    member = rng.random((32, 400)) < 0.5
    gap = rng.normal(1 + 1.0 * member)
    np.save(folder / "member.npy", member)
    calm = require_success(import_bank(folder, "calm", gap))
    gap[3, 7], gap[5, 9] = 1e6, -1e6
    result = import_bank(folder, "outliers", gap)
    if result.returncode == 0:
        before, after = read_aucs(folder / "calm"), read_aucs(folder / "outliers")
        for name, value in before.items():
            if not abs(after[name] - value) < 0.02:
                problems.append(f"two outliers of 12,800: AUC of {name} {value:.3f} -> {after[name]:.3f}")
    elif not result.explains(r"(?=.*outliers\.npy)(?=.*\b(3|5)\b)", calm):
        problems.append(f"two outliers end the import without their place: {result.output[-200:]!r}")
    gap[3, 7] = np.inf
    result = import_bank(folder, "infinite", gap)
    if not result.refusal or not result.explains(r"(?=.*infinite\.npy)(?=.*\binf\b)(?=.*\b3\b)(?=.*\b7\b)"):
        problems.append(f"inf is not refused with its place: {result.output[-200:]!r}")
    return problems


def import_bank(folder: Path, name: str, gap: np.ndarray) -> CommandResult:
    file = str(folder / f"{name}.npy")
    np.save(file, gap)
    arrays = ("--member", str(folder / "member.npy"), "--gap", file, "--logit-confidence", file)
    return run_command(folder, "memscore.bank", "import", str(folder / name), *arrays, "--attacks", *ATTACKS)


if __name__ == "__main__":
    run_case(check)
