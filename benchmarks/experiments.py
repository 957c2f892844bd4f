"""Write docs/results/experiments.md from experiments that were run: verdicts of trends, and a page an experiment.

    python -m unlearn.experiment rum STORE            (and the others, as long as they take)
    python -m benchmarks.experiments STORE [STORE ...]

Reads STORE/experiments/*, whatever is there; runs nothing. Pages written earlier from other stores stay, with their
part in the trends; a page that was deleted is forgotten. A trend's cell counts the claims that belong to it, by what
their intervals said.
"""

import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.parquet as pq
import tyro

from benchmarks.results_file import RESULTS, machine, save
from benchmarks.unlearning_tables import read_results
from memscore.store.store import Store
from unlearn.experiments.registry import EXPERIMENTS
from unlearn.experiments.tables import RUM_NOTE, format_p
from unlearn.trials.config import format_plan
from unlearn.tuning.results import compute_regrets, format_cell, group_by_method

DOCS = Path(__file__).parents[1] / "docs" / "results"
PAGES = DOCS / "experiments"
COLUMNS = {
    "tow_test": "ToW",
    "tow_mia_test": "ToW-MIA",
    "forget_accuracy": "forget accuracy",
    "retain_accuracy": "retain accuracy",
    "accuracy_test": "test accuracy",
    "mia_test": "MIA",
    "mia_test_gap": "MIA gap",
    "rrt_examples": "examples",
    "steps": "steps",
    "gain_per_pass": "gain a pass",
    "wall_s": "seconds",
}
MORE = {"round_wall_s": "seconds a round", "gini": "Gini", "rrt_wall": "seconds over retraining's"}
"""What columns of single experiments are called, where a page does not call them as rows do."""
OF_RUM = ("finetune", "l1-sparse", "gradient-ascent", "neggrad-plus", "influence")
DRAWN = "salun|random-label"
KEPT = ("page", "experiment", "bank", "theta_o_train_accuracy", "asked", "spent", "originals", "findings", "remarks")
EARLIER_PLANS = {
    "nothing, fine-tuning, SalUn": "nothing>finetune>salun",
    "nothing, SalUn, fine-tuning": "nothing>salun>finetune",
    "SalUn does better with nothing done to what is little memorized": "nothing>salun>salun has a higher ToW than "
    "RUM^F of salun",
    "SalUn reads no more examples with nothing done to what is little memorized": "nothing>salun>salun reads no more "
    "examples than RUM^F of salun",
    "the paper's plan": "nothing>finetune>salun",
}
"""Words of claims that earlier versions stored -> those of today, which name plans as they are typed."""
VERDICTS = ("holds", "fails", "undecided", "no verdict")
TABLES = {"unlearning_cnn": "Fashion-MNIST, CNN", "unlearning_digits": "digits, MLP"}
TOP = """# Experiments: claims of the papers, and what was measured

Each experiment is one command, `python -m unlearn.experiment NAME STORE`, and has a page of claims, tables and a
figure. Hyper-parameters were selected on other originals and another forget set of the same kind than are reported.
Values are means over originals with 95 % t intervals, over tunings where there are several. A verdict rests on the
claim's difference, paired by original, with hyper-parameters selected by the oracle: *holds* if it is above 0 at 5 %
(*similar*: within its margin, by two one-sided tests), *fails* if it is below 0, *undecided* if neither is shown.
Where a page has a column *uncorrected*, verdicts are at 5 % for all claims of one kind together (Holm 1979), and that
column has those of each claim alone; on pages without it they are of each claim alone, and some of them are chance.
*Given this tuning*, as all verdicts of such pages are where parameters were tuned, means that these were chosen once:
another choice may reverse them. These are small models on Fashion-MNIST: a trend that fails here is not refuted where
the paper saw it. Algorithms that draw labels have twice as many originals (`n`): compare such rows by the verdicts,
which are paired, not by their means. `examples` is the number of examples that the algorithm read, divided by the
number that retraining read; *gain a pass* is its ToW above that of doing nothing, for each pass over the training
set; `seconds` is the time of one worker, on a machine that ran other work too.
"""


@dataclass(frozen=True, kw_only=True)
class Trend:
    """One thing that papers say, and which claims of experiments bear on it.

    Attributes:
        says: in words.
        claims: (experiment, regular expression of its claims).
    """

    says: str
    claims: tuple[tuple[str, str], ...]


TRENDS = (
    Trend(
        says="the oracle's forget accuracy and the original's ToW fall with memorization",
        claims=(("memorization", r"^the oracle|^to do nothing"),),
    ),
    Trend(
        says="fine-tuning, L1-sparse, NegGrad, NegGrad+ and influence have a higher ToW at low memorization",
        claims=(("memorization", rf"^({'|'.join(OF_RUM)}): ToW is higher on low"),),
    ),
    Trend(
        says="the other algorithms have a higher ToW at low memorization",
        claims=(("memorization", rf"^(?!{'|'.join(OF_RUM)}|mean).*: ToW is higher on low"),),
    ),
    Trend(
        says="random labels and SalUn have a higher ToW at high memorization",
        claims=(("memorization", r"^(?!mean).*: ToW is higher on high"),),
    ),
    Trend(
        says="the MIA of random labels and SalUn at low memorization is above the oracle's",
        claims=(("memorization", r": MIA on low memorization"),),
    ),
    Trend(says="RUM^F has a higher ToW than vanilla", claims=(("rum", r": RUM\^F has a higher ToW than vanilla"),)),
    Trend(says="shuffle has no higher ToW than vanilla", claims=(("rum", r": vanilla has a higher ToW than shuffle"),)),
    Trend(
        says="the plan nothing>finetune>salun has a higher ToW than RUM^F",
        claims=(("rum", r"^nothing>finetune>salun has a higher ToW than RUM\^F of"),),
    ),
    Trend(
        says="the plan nothing>finetune>salun has a higher ToW than the plan nothing>salun>finetune",
        claims=(("rum", r"than nothing>salun>finetune$"),),
    ),
    Trend(says="a plan with nothing costs no more than RUM^F", claims=(("rum", r"reads no more examples"),)),
    Trend(
        says="random labels and SalUn: the ascending order has the smaller MIA gap, and ToW is similar in both orders",
        claims=(
            ("sequence", rf"^({DRAWN}).*(smaller MIA gap|similar ToW)"),
            ("rum", rf"^({DRAWN}): .*smaller MIA gap"),
        ),
    ),
    Trend(
        says="other algorithms: ToW is similar in both orders",
        claims=(("sequence", rf"^(?!{DRAWN}).*similar ToW"), ("rum", r"^finetune: .*similar ToW")),
    ),
    Trend(
        says="ToW is lower for highly entangled forget sets",
        claims=(("entanglement", r"^(?!mean).*is higher at low ES$"),),
    ),
    Trend(
        says="ToW is lower for highly entangled forget sets of equal memorization",
        claims=(("entanglement", r"^(?!mean).*is higher at low ES at equal score$"),),
    ),
    Trend(
        says="RUM^F by a proxy has a higher ToW than vanilla",
        claims=(("proxies", r"^(?!mean).*is above vanilla \(ToW\)"),),
    ),
    Trend(
        says="RUM^F by a proxy costs less than retraining", claims=(("proxies", r"takes less time than retraining"),)
    ),
    Trend(
        says="after five requests RUM^F has lost its advantage, and the scores' Gini coefficient has fallen",
        claims=(("five-steps", r"is less in round|lowers the Gini"),),
    ),
    Trend(
        says="RSU has a higher ToW than a single run on a class",
        claims=(("rsu", r"^(?!mean).*RSU is above one go.*class"),),
    ),
    Trend(
        says="RSU gains more on a class than on random examples", claims=(("rsu", r"^(?!mean).*gains more on a class"),)
    ),
    Trend(
        says="on random examples the MIA gap of all algorithms is the same",
        claims=(("rsu", r"the same MIA gap"),),
    ),
    Trend(
        says="ascending risk has a higher ToW than descending risk",
        claims=(("rsu", r"^(?!mean).*ascending risk is above descending"),),
    ),
)
RANKS = {
    "proxies correlate with memorization, each with the expected sign": r"with memorization$",
    "confidence during training has the highest correlation": r"^.confidence. > ",
    "the riskiest examples have a higher loss": r"rises with the loss$|riskiest.*more loss$",
}
"""What is said of proxies -> regular expression of the claims of benchmarks.fashion_fidelity that bear on it."""


def main(stores: Annotated[Sequence[str], tyro.conf.Positional]) -> None:
    """Write the pages, their pictures and the file of results.

    Args:
        stores: banks on which experiments were run.
    """
    found = [one for url in stores for one in experiments_of(url)]
    if not found:
        raise SystemExit(f"no experiment lies in {', '.join(stores)}; run `python -m unlearn.experiment NAME STORE`")
    PAGES.mkdir(exist_ok=True)
    for one in found:
        shutil.copyfile(one["folder"] / "figure.png", PAGES / f"{one['page']}.png")
        (PAGES / f"{one['page']}.md").write_text("\n".join(page(one)) + "\n")
    written = {one["page"]: {key: one[key] for key in KEPT} | {"machine": machine()} for one in found}
    order = list(EXPERIMENTS)
    every = sorted((earlier() | written).values(), key=lambda one: (order.index(one["experiment"]), one["bank"]))
    lines = [TOP, *trends(every), *of_tables(), *of_proxies(), *contents(every)]
    (DOCS / "experiments.md").write_text("\n".join(lines) + "\n")
    save("experiments", {"experiments": every}, quiet=True)
    print(f"{len(found)} experiments written to {PAGES}, {len(every)} are in {DOCS / 'experiments.md'}")


def earlier() -> dict[str, Any]:
    """What other stores gave, where its page is still there."""
    path = RESULTS / "experiments.json"
    found = json.loads(path.read_text())["experiments"] if path.exists() else []
    return {one["page"]: one for one in found if (PAGES / f"{one['page']}.md").exists()}


def contents(every: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line a page: where it comes from and what it took."""
    lines = [
        "## Experiments",
        "",
        *row(["", "paper", "bank", "forget set", "originals", "configurations", "worker-hours"]),
    ]
    lines += row(["---"] * 7)
    for one in every:
        spent = one["spent"]
        cells = [one["asked"]["scale"]["size"] or "-", one["originals"]]
        cells += [f"{spent['attempts']:.0f}", f"{spent['tuning_s'] / 3600:.2f}"] if spent else ["-", "-"]
        name = f"[{one['experiment']}](experiments/{one['page']}.md)"
        lines += row([name, EXPERIMENTS[one["experiment"]].source, one["bank"], *cells])
    return lines


def of_tables() -> list[str]:
    """Trends that the tables of all algorithms speak of, in ranks and areas: they keep no rows to pair."""
    banks = {name: title for name, title in TABLES.items() if (RESULTS / f"{name}.json").exists()}
    cells = list(zip(*(in_table(read_results(name)) for name in banks), strict=True))
    says = (
        "L1-sparse is a strong second: its rank by ToW",
        "gradient ascent is unstable across learning rates: its rank by the range of ToW over its trials",
        "U-LiRA distinguishes every algorithm from retraining",
    )
    lines = row(["", *banks.values()]) + row(["---"] * (1 + len(banks)))
    for words, own in zip(says, cells, strict=True):
        lines += row([words, *own])
    return ["From [the tables of all algorithms](unlearning.md):", "", *lines, ""]


def of_proxies() -> list[str]:
    """What the bank says of proxies themselves, where benchmarks.fashion_fidelity was run."""
    path = RESULTS / "fashion_fidelity.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    lines = [f"Of the proxies themselves ({found['what']}), `python -m benchmarks.fashion_fidelity`:", ""]
    lines += row(["", "", "Spearman's rho, or a difference of two"]) + row(["---"] * 3)
    for says, words in RANKS.items():
        claims = [one for one in found["trends"] if re.search(words, one["claim"])]
        said = "; ".join(f"{one['claim']} {interval(one['value'])}" for one in claims)
        lines += row([says, counted(one["verdict"] for one in claims), said])
    return [*lines, ""]


def in_table(found: Mapping[str, Any]) -> list[str]:
    """What one table says to each of them."""
    rows, winners = found["rows"], found["winners"]
    reach = {name: float(np.ptp(np.nan_to_num(own["tow_validation_of_trials"]))) for name, own in winners.items()}
    tow = {name: float(rows[name]["tow_test"]["value"]) for name in winners}
    auc = {name: float(own["u_lira_auc"]) for name, own in found["many"].items()}
    return [place(tow, "l1-sparse"), place(reach, "gradient-ascent"), told_apart(auc)]


def place(values: Mapping[str, float], name: str) -> str:
    """Which of how many an algorithm is, from the highest value down."""
    return f"{sorted(values, key=lambda one: -values[one]).index(name) + 1} of {len(values)}"


def told_apart(auc: Mapping[str, float]) -> str:
    """The smallest AUC of an algorithm beside that of a second oracle."""
    own = {name: value for name, value in auc.items() if name not in {"retrain", "original"}}
    least = min(own, key=lambda name: own[name])
    verdict = "holds" if own[least] > auc["retrain"] else "fails"
    return f"{verdict}: AUC of {len(own)} from {own[least]:.3f} ({least}), a second oracle {auc['retrain']:.3f}"


def experiments_of(url: str) -> list[dict[str, Any]]:
    """What lies in one store: the record of each experiment with its rows and its bank."""
    manifest, found = Store.open(url).manifest, []
    bank = f"{manifest.data}, {manifest.architecture}, {manifest.split_sizes[0]:,} images"
    for path in sorted(Path(url, "experiments").glob("*/findings.json")):
        rows = pq.read_table(path.parent / "rows.parquet").to_pylist()
        rows = [{name: math.nan if value is None else value for name, value in row.items()} for row in rows]
        originals = [row for row in rows if row["contender"] == "original" and row["select"] == ""]
        known = {row["index"]: row["retain_accuracy"] for row in originals}
        found.append(
            json.loads(path.read_text())
            | {"folder": path.parent, "page": f"{path.parent.name}-{slug(bank)}"}
            | {"rows": rows, "bank": bank, "originals": len(known)}
            | {"theta_o_train_accuracy": float(np.mean(list(known.values()))) if known else math.nan}
        )
    return found


def slug(bank: str) -> str:
    """A bank's name as a part of a file's."""
    return bank.replace(",", "").replace(" images", "").replace(" ", "-")


def trends(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line a trend, a column a bank."""
    banks = sorted({one["bank"] for one in found})
    lines = ["## Trends", "", *row(["", *banks]), *row(["---"] * (1 + len(banks)))]
    for trend in TRENDS:
        cells = [
            counted(
                claim["verdict"]
                for one in found
                for name, words in trend.claims
                for claim in one["findings"]
                if one["bank"] == bank and one["experiment"] == name and re.search(words, rename_plans(claim["claim"]))
            )
            for bank in banks
        ]
        lines += row([trend.says, *cells])
    return [*lines, ""]


def rename_plans(claim: str) -> str:
    """A stored claim in the words of today."""
    for earlier, today in EARLIER_PLANS.items():
        claim = claim.replace(earlier, today)
    return claim


def counted(verdicts: Iterable[str]) -> str:
    """Each verdict with its number, holds first."""
    count = Counter(verdict.partition(":")[0] for verdict in verdicts)
    if not count:
        return "not run"
    if len(count) == 1 and sum(count.values()) == 1:
        return next(iter(count))
    ranked = sorted(count, key=lambda verdict: (VERDICTS.index(verdict.partition(",")[0]), verdict))
    return "; ".join(f"{name} {count[name]}" for name in ranked)


def page(one: Mapping[str, Any]) -> list[str]:
    """One experiment."""
    scale, spent, entry = one["asked"]["scale"], one["spent"], EXPERIMENTS[one["experiment"]]
    head = f"# {one['experiment']}: {one['bank']}"
    forget = f"{scale['size']} examples" if scale["size"] else "a tenth of the classes, or of the examples,"
    words = (
        f"{entry.source}. Forget set: {forget}; originals reported: {originals_of(one['rows'])}; {scale['budget']} "
        f"configurations at each step on {scale['tune_seeds']} others; retain accuracy of theta_o "
        f"{one['theta_o_train_accuracy']:.3f}."
    )
    if spent:
        words += (
            f" {spent['attempts']:.0f} configurations, {spent['runs']:.0f} tuning runs, {spent['tuning_s'] / 3600:.2f} "
            "worker-hours of algorithms."
        )
    lines = [head, "", words, "", f"![{one['experiment']}]({one['page']}.png)", ""]
    lines += claim_table(one["findings"])
    lines += ["", *(f"- {remark}" for remark in one["remarks"]), ""]
    columns = COLUMNS | {name: MORE.get(name, name) for name in entry.columns if name not in COLUMNS}
    for part in dict.fromkeys(r["part"] for r in one["rows"]):
        groups = group_by_method([r for r in one["rows"] if r["part"] == part])
        lines += [f"<details><summary>{part}</summary>", ""]
        lines += row(["", "variant", "chosen by", "n", *columns.values()]) + row(["---"] * (4 + len(columns)))
        for (name, variant, select), own in groups.items():
            n = len({r["index"] for r in own})
            cells = [format_cell([{column: math.nan} | r for r in own], column) for column in columns]
            lines += row([format_plan(name), variant, select, n, *cells])
        lines += [*regret_table([r for r in one["rows"] if r["part"] == part]), "", "</details>", ""]
    return lines


def originals_of(rows: Sequence[dict[str, Any]]) -> str:
    """How many originals the methods of a page are reported on, as 8 or 16, with the algorithms of each number."""
    algorithms: dict[int, dict[str, None]] = {}
    for (name, _, select), own in group_by_method(rows).items():
        if select:
            algorithms.setdefault(len({r["index"] for r in own}), {})[format_plan(name)] = None
    if len(algorithms) == 1:
        return str(next(iter(algorithms)))
    return ", ".join(f"{n} of {' '.join(names)}" for n, names in sorted(algorithms.items())) or "-"


def claim_table(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """The claims with their verdicts: corrected and not, where the run stored both."""
    corrected = any("uncorrected" in claim for claim in claims)
    head = ["claim", "paper", "here", *["p"] * corrected, "verdict", *["uncorrected"] * corrected]
    lines = row(head) + row(["---"] * len(head))
    for claim in claims:
        p = claim.get("p_family")
        cells = [rename_plans(claim["claim"]), claim["paper"], interval(claim["value"])]
        cells += [format_p(math.nan if p is None else p)] * corrected
        lines += row([*cells, claim["verdict"], *[claim.get("uncorrected", "")] * corrected])
    return [*lines, *(["", RUM_NOTE] if any("RUM^F" in claim["claim"] for claim in claims) else [])]


def regret_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What choosing without an oracle cost, where both chose."""
    found = compute_regrets(rows)
    if not found:
        return []
    lines = ["", *row(["", "variant", "regret of choosing without an oracle (ToW)"]), *row(["---"] * 3)]
    for (name, variant), value in found.items():
        lines += row([format_plan(name), variant, interval(asdict(value))])
    return lines


def interval(value: Mapping[str, float]) -> str:
    """A difference with its interval; a dash where it is undefined."""
    numbers = [value[name] for name in ("value", "lo", "hi")]
    if any(number is None or math.isnan(number) for number in numbers):
        return "-"
    return f"{numbers[0]:+.3f} [{numbers[1]:+.3f}, {numbers[2]:+.3f}]"


def row(cells: Sequence[Any]) -> list[str]:
    """A line of Markdown."""
    return ["| " + " | ".join(str(cell).replace("|", r"\|") for cell in cells) + " |"]


if __name__ == "__main__":
    tyro.cli(main)
