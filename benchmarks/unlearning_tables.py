"""Write docs/results/unlearning.md from the results of benchmarks.unlearning: every algorithm, oracle and original.

    python -m benchmarks.unlearning_tables

Measures of many models are of a run's own file, or of NAME_many.json, where a few algorithms were run on more models.
"""

import json
import math
from pathlib import Path
from typing import Any

from benchmarks.results_file import RESULTS
from unlearn.trials.config import ORACLE

PAGE = Path(__file__).parents[1] / "docs" / "results" / "unlearning.md"
COLUMNS = {
    "tow_test": "ToW",
    "tow_mia_test": "ToW-MIA",
    "forget_accuracy": "forget accuracy",
    "retain_accuracy": "retain accuracy",
    "accuracy_test": "test accuracy",
    "mia_test": "MIA",
    "mia_test_gap": "MIA gap",
    "entanglement": "ES",
    "rrt_examples": "examples",
    "wall_s": "seconds",
}
MANY = {
    "u_lira_accuracy": "U-LiRA accuracy",
    "u_lira_auc": "U-LiRA AUC",
    "forgetting_score": "forgetting score",
    "klom_forget_mean": "KLOM, forget set",
    "klom_retain_mean": "KLOM, retain set",
    "klom_mean_test": "KLOM, test set",
}
TOP = """# Every algorithm, with the oracle and the original

From `python -m benchmarks.unlearning`, whose docstring has the protocol: the defaults and draws from each search
space are tried on originals that are not reported, one is selected by ToW on the selection half of validation, and it
is evaluated on the test set with other seeds. Values are means with 95 % t intervals. ToW and ToW-MIA are computed
for each pair of model and oracle, 1 is best; accuracies, MIA and ES are best where the oracle's are. `examples` is
the number of examples that the algorithm read, divided by the number that retraining read; `seconds` is the wall
clock of one worker, on a machine that ran other work too. `retrain` is a second oracle under another seed: no
algorithm can be expected to come closer.
"""


def main() -> None:
    """Write the page."""
    parts = [TOP]
    for name in ("unlearning_cnn", "unlearning_digits"):
        path = RESULTS / f"{name}.json"
        if path.exists():
            parts.append(section(read_results(name)))
    PAGE.write_text("\n".join(parts))
    print(f"written to {PAGE}")


def read_results(name: str) -> dict[str, Any]:
    """Results of benchmarks.unlearning, with the measures of many models where they were taken apart."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    apart = RESULTS / f"{name}_many.json"
    return found | ({"many": json.loads(apart.read_text())["many"]} if apart.exists() else {})


def section(found: dict[str, Any]) -> str:
    """The tables of one data set."""
    rows, winners = found["rows"], found["winners"]
    ranked = sorted(winners, key=lambda name: -value(rows[name], "tow_test"))
    lines = [f"## {found['what']}", ""]
    lines += [f"{found['trials_each']} trials of each on {found['tuned_on_originals']} originals.", ""]
    columns = {column: title for column, title in COLUMNS.items() if column in rows[ORACLE]}
    lines += table(
        ["", "n", *columns.values()],
        [
            [name, rows[name]["n"], *(cell(rows[name], c) for c in columns)]
            for name in (ORACLE, *ranked, "retrain", "original")
        ],
    )
    if found["many"]:
        n = int(next(iter(found["many"].values()))["u_lira_n"])
        null = found["many"]["retrain"]
        lines += [
            f"Measures of {n} models on each side; `retrain` says what two groups of oracles show. Two samples of "
            f"one distribution would have a forgetting score of {null['forgetting_score_null']:.3f} and KLOM of "
            f"{null['klom_forget_null_mean']:.2f}.",
            "",
        ]
        order = [name for name in (*ranked, "retrain", "original") if name in found["many"]]
        lines += table(
            ["", *MANY.values()], [[name, *(number(found["many"][name][c]) for c in MANY)] for name in order]
        )
    lines += [
        "The selected configuration of each algorithm, and which of its parameters lie at an end of their range:",
        "",
    ]
    chosen = [
        [
            name,
            ", ".join(f"{k} {number(v)}" for k, v in searched(winners[name]).items()),
            ", ".join(winners[name]["at_boundary"]),
            number(winners[name]["tow_validation"]),
            winners[name]["diverged"],
        ]
        for name in ranked
    ]
    lines += table(["", "config", "at a boundary", "ToW on validation", "diverged trials"], chosen)
    return "\n".join(lines)


def searched(winner: dict[str, Any]) -> dict[str, Any]:
    """The fields that a search varies, as chosen."""
    return {name: winner["config"][name] for name in winner["searched"]}


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    """Markdown."""
    body = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return [*body, ""]


def value(row: dict[str, Any], column: str) -> float:
    """A mean; below everything where it is undefined."""
    mean = row[column]["value"]
    return -math.inf if mean is None or math.isnan(mean) else float(mean)


def cell(row: dict[str, Any], column: str) -> str:
    """A mean with half of its interval."""
    found = row[column]
    if math.isnan(found["value"]):
        return ""
    half = (found["hi"] - found["lo"]) / 2
    return number(found["value"]) + ("" if math.isnan(half) else f" ± {number(half)}")


def number(value: Any) -> str:
    """Three decimals, four where they say more."""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return (
            f"{value:.4f}" if 0.0005 <= abs(value) < 0.01 else f"{value:.3f}" if abs(value) < 1000 else f"{value:.4g}"
        )
    return str(value)


if __name__ == "__main__":
    main()
