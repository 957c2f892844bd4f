"""One model of 32 is wild: its outputs are 30 times too large, negated or constant. It is named, and no AUC falls."""

from pathlib import Path

import numpy as np

from tests.cases._support import CaseError, CommandResult, read_aucs, require_success, run_case, run_command

WILD = 3
NAMED = rf"\bmodels?\W+(0*{WILD}\b|\S*-0*{WILD}\b)|-0{{2,}}{WILD}\b"


WILD_OUTPUTS = {
    "30 times larger": lambda gap: 30 * gap,
    "negated": lambda gap: -gap,
    "constant": lambda gap: np.full_like(gap, np.median(gap)),
}


def check(folder: Path) -> list[str]:
    rng, problems = np.random.default_rng(0), []
    member = rng.random((32, 400)) < 0.5
    gap = rng.normal(1 + 1.0 * member)
    np.save(folder / "member.npy", member)
    calm = require_success(import_bank(folder, "calm", gap))
    if calm.explains(NAMED):
        raise CaseError(f"model {WILD} is named where nothing is wrong with it: {calm.output}")
    before = read_aucs(folder / "calm")
    for number, (kind, change) in enumerate(WILD_OUTPUTS.items()):
        wild_gap = gap.copy()
        wild_gap[WILD] = change(gap[WILD])
        wild = import_bank(folder, f"wild-{number}", wild_gap)
        if not wild.explains(NAMED, calm):
            problems.append(f"one model of 32 is {kind}: model {WILD} is named nowhere")
        if wild.returncode == 0:
            after = read_aucs(folder / f"wild-{number}")
            problems += [
                f"one model of 32 is {kind}: AUC of {name} {value:.3f} -> {after[name]:.3f}"
                for name, value in before.items()
                if not after[name] > value - 0.05
            ]
    return problems


def import_bank(folder: Path, name: str, gap: np.ndarray) -> CommandResult:
    file = str(folder / f"{name}.npy")
    np.save(file, gap)
    arrays = ("--member", str(folder / "member.npy"), "--gap", file, "--logit-confidence", file)
    bank = str(folder / name)
    return run_command(folder, "memscore.bank", "import", bank, *arrays, "--attacks", "lira", "lira-paper")


if __name__ == "__main__":
    run_case(check)
