"""Claim: an experiment that is run twice, with other seeds of everything, says the same within its intervals.

    python -m unlearn.experiment NAME FIRST --seed 0        (and the same of a bank SECOND of another seed, --seed 1)
    python -m benchmarks.repeated_experiments FIRST SECOND [--before experiments.json]

Every claim that both runs judged gives z = (a - b) / sqrt(se_a^2 + se_b^2). With three tunings each standard error has
two degrees of freedom, so z follows Student's t with about four (Welch-Satterthwaite), whose root mean square is 1.41;
"rms z" is that of the normal quantiles of its probabilities, which is 1 where intervals are right, and "rms z, plain"
is of z itself. Claims of one run share originals and oracles, so their z are dependent, and the number of claims is no
sample size. "reversed" counts claims that hold in one run and fail in the other. --before gives the results of earlier
pages, whose intervals are over originals alone: their median half width stands beside that of the same claims now.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from scipy.stats import norm
from scipy.stats import t as student

from benchmarks.experiments import experiments_of, rename_plans
from benchmarks.results_file import RESULTS, save

KNOWN = ("the oracle is right more often", "the oracle's MIA is higher", "to do nothing is nearer")
"""How the claims begin whose truth is not in doubt: they are about retraining, not about an algorithm."""
DECIDED = {"holds", "fails"}
Claims = Mapping[str, Mapping[str, Any]]


def main(first: tyro.conf.Positional[str], second: tyro.conf.Positional[str], before: str = "") -> None:
    """Compare two runs of each experiment that lies in both banks.

    Args:
        first: a bank with experiments.
        second: a bank of the same kind with other seeds.
        before: a file of results of benchmarks.experiments, of earlier pages.
    """
    runs = [{one["experiment"]: one for one in experiments_of(url)} for url in (first, second)]
    names = [name for name in runs[0] if name in runs[1]]
    if not names:
        raise SystemExit(f"no experiment lies in both {first} and {second}; run one on each")
    path = RESULTS / "repeated_experiments.json"
    stored = json.loads(path.read_text())["experiments"] if path.exists() else {}
    earlier = json.loads(Path(before).read_text())["experiments"] if before else []
    found = {}
    for name in names:
        claims = [read_claims(run[name]["findings"]) for run in runs]
        old = [one for one in earlier if one["experiment"] == name and one["bank"] == runs[0][name]["bank"]]
        compared = compare(*claims) | {"bank": runs[0][name]["bank"], "spent": [run[name]["spent"] for run in runs]}
        if old:
            compared["half_width_before"] = width_of(read_claims(old[0]["findings"]), claims[0])
        elif name in stored and "half_width_before" in stored[name]:
            compared["half_width_before"] = stored[name]["half_width_before"]
        found[name] = compared
        print(f"{name}: {json.dumps(compared, indent=1)}")
    save("repeated_experiments", {"what": "each experiment on two banks with other seeds", "experiments": found})


def read_claims(findings: Sequence[Mapping[str, Any]]) -> Claims:
    """The claims of a run by their words, without the names of scores, which may differ."""
    return {rename_plans(claim["claim"]): claim for claim in findings}


def compare(first: Claims, second: Claims) -> dict[str, Any]:
    """Compare the claims that both runs have."""
    common = [words for words in first if words in second]
    pairs = [(first[words], second[words]) for words in common]
    verdicts = [tuple(claim["verdict"].partition(":")[0] for claim in pair) for pair in pairs]
    tested = [pair for pair in pairs if all(has_error(claim["value"]) for claim in pair)]
    plain, normal = zip(*(z_of(*(claim["value"] for claim in pair)) for pair in tested), strict=True)
    # the order of differences is arbitrary, so the direction of each z is too
    return {
        "claims": len(pairs),
        "tested": len(tested),
        "rms_z": float(np.sqrt(np.mean(np.square(normal)))),
        "rms_z_plain": float(np.sqrt(np.mean(np.square(plain)))),
        "beyond_1.96": int(np.sum(np.abs(normal) > norm.ppf(0.975))),
        "decided": [int(np.sum([verdict[run] in DECIDED for verdict in verdicts])) for run in (0, 1)],
        "decided_in_both": sum(DECIDED.issuperset(verdict) for verdict in verdicts),
        "uncorrected_in_both": sum(DECIDED.issuperset(claim["uncorrected"] for claim in pair) for pair in pairs),
        "reversed": [words for words, verdict in zip(common, verdicts, strict=True) if set(verdict) == DECIDED],
        "known": {
            words: list(verdict) for words, verdict in zip(common, verdicts, strict=True) if words.startswith(KNOWN)
        },
        "half_width": [width_of({words: run[words] for words in common}) for run in (first, second)],
        "each": {
            words: {
                "values": [claim["value"]["value"] for claim in pair],
                "verdicts": list(verdict),
                "z": z_of(*(claim["value"] for claim in pair))[1] if pair in tested else None,
            }
            for words, pair, verdict in zip(common, pairs, verdicts, strict=True)
        },
    }


def has_error(value: Mapping[str, Any]) -> bool:
    """Whether a value has a standard error above 0."""
    return value["se"] is not None and value["se"] > 0


def z_of(ours: Mapping[str, float], theirs: Mapping[str, float]) -> tuple[float, float]:
    """The difference of two estimates over its standard error, and the normal quantile of its probability.

    >>> z_of({"value": 1.0, "se": 0.3, "df": 1e9}, {"value": 0.5, "se": 0.4, "df": 1e9})
    (1.0, 1.0)
    """
    variances = np.array([ours["se"], theirs["se"]]) ** 2
    z = (ours["value"] - theirs["value"]) / np.sqrt(variances.sum())
    df = variances.sum() ** 2 / np.sum(variances**2 / [ours["df"], theirs["df"]])
    # the tail above |z| keeps its precision where the probability below z rounds to 1
    return float(z), round(float(np.sign(z) * norm.isf(student.sf(abs(z), df))), 6)


def width_of(claims: Claims, like: Claims | None = None) -> float:
    """The median half width of intervals, of the claims that `like` has too."""
    values = [claim["value"] for words, claim in claims.items() if like is None or words in like]
    widths = [(value["hi"] - value["lo"]) / 2 for value in values if value["hi"] is not None]
    return float(np.nanmedian(widths))


if __name__ == "__main__":
    tyro.cli(main)
