"""Claim: every algorithm measured the same way, its hyper-parameters chosen on validation and judged on other seeds.

    python -m benchmarks.unlearning STORE --name unlearning_cnn [--forget memorization_k0.500:union] [--size 600]
        [--trials 16] [--tune 1] [--seeds 3] [--many 0] [--algorithms NAME ...] [--workers 2] [--quick]

STORE is a bank of `python -m memscore.estimate`, which gives the scores, the recipe of originals and oracles, and keeps
all trials, so the same command goes on where it was stopped. For each algorithm its defaults and `trials` - 1 draws
from its search space run on originals 0 to `tune` - 1; the one with the highest mean ToW on the selection half of
validation wins (a diverged run counts as 0); it is told where it lies at the end of a range. The winner then runs on
`seeds` originals that had no part in the choice, twice as many for algorithms that draw labels, and is judged on test.
With `many`, winners run on so many originals besides, for the measures of many models; retrain's row is the null: a
second oracle.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console

from benchmarks.results_file import save
from cluster.launch import PoolOptions, open_ray_pool
from memscore.cli.options import Several
from memscore.pipeline.jobs import compute_job_key
from memscore.statistics.means import estimate_mean
from memscore.tables.console import make_table
from memscore.tables.progress_bar import ProgressBar
from unlearn.algorithms import ALGORITHMS, get_algorithm
from unlearn.forget_sets import ForgetSet
from unlearn.measures import MEASURES
from unlearn.oracles import build_reference_jobs, train_reference_models
from unlearn.search_space import is_at_boundary
from unlearn.trials.config import ORACLE, Row, TrialConfig, resolve_in_store
from unlearn.trials.measure import select_population_measures
from unlearn.trials.populations import measure_population
from unlearn.trials.prepare import prepare_trials
from unlearn.trials.request import TrialRequest
from unlearn.trials.runner import run_trial
from unlearn.trials.setup import UnlearningContext

COLUMNS = (
    "tow_test", "forget_accuracy", "retain_accuracy", "accuracy_test", "mia_test", "mia_test_gap", "rrt_examples",
    "wall_s",
)  # fmt: skip
TOW = ("tow",)
FIXED = (ORACLE, "original", "retrain")
Params = tuple[tuple[str, Any], ...]


def main(
    store: Annotated[str, tyro.conf.Positional],
    name: str,
    forget: str = "memorization_k0.500:union",
    size: int = 600,
    trials: int = 16,
    tune: int = 1,
    seeds: int = 3,
    many: int = 0,
    algorithms: Several = (),
    workers: int = 2,
    quick: bool = False,
) -> None:
    """Measure.

    Args:
        store: path of a bank.
        name: of the file of results.
        forget: the forget set.
        size: of it.
        trials: configs tried of each algorithm.
        tune: originals they are tried on.
        seeds: originals that winners are judged on.
        many: originals beyond those, for the measures of many models.
        algorithms: all if none is named.
        workers: processes.
        quick: two trials, one seed; only printed.
    """
    trials, seeds = (2, 1) if quick else (trials, seeds)
    wanted = [n for n in algorithms or ALGORITHMS if n not in FIXED]
    asked = prepare_trials(TrialRequest(store=store, forget=forget, size=size, algorithm="original")).context
    last = tune + max(2 * seeds, seeds + many)
    with open_ray_pool(PoolOptions(workers=workers)) as session:
        pool, device = session.pool, session.device
        with ProgressBar("models") as meter:
            train_reference_models(
                asked.store, build_reference_jobs(asked.store, [], range(last), device), asked.trial_data, pool, meter
            )
            first = build_reference_jobs(asked.store, [], [0], device)[0]
            chosen = asked.select_forget_set(lambda: asked.store.read_outputs(compute_job_key(asked.store, first))[1])
            train_reference_models(
                asked.store,
                build_reference_jobs(asked.store, [chosen.rows], range(last), device),
                asked.trial_data,
                pool,
                meter,
            )
        tried = {n: candidates(n, trials) for n in wanted}
        plan = [planned(asked, chosen, n, p, i, device, TOW) for n in wanted for p in tried[n] for i in range(tune)]
        rows = ran(asked, plan, pool, "trials")
        winners = {n: best(n, tried[n], rows, asked, chosen, tune, device) for n in wanted}
        print(json.dumps({n: w["config"] for n, w in winners.items()}, indent=2), flush=True)
        final = {
            n: [
                planned(asked, chosen, n, winners[n]["params"] if n in winners else (), i, device)
                for i in range(tune, tune + seeds * (1 + (n in ALGORITHMS and ALGORITHMS[n].random_labels)))
            ]
            for n in (*FIXED, *wanted)
        }
        judged = ran(asked, [t for own in final.values() for t in own], pool, "judged")
        wide = measured_on_many(asked, chosen, winners, many, tune + seeds, pool, device) if many else {}
    result = {n: summary([judged[t] for t in own if t in judged]) for n, own in final.items()}
    printed(result, winners, wide, len(chosen.rows), asked.store.manifest.data)
    if not quick:
        save(
            name,
            {
                "what": f"{asked.store.manifest.data}, {asked.store.manifest.architecture}, "
                f"{asked.store.manifest.split_sizes[0]} training examples, forget {chosen.name}",
                "trials_each": trials,
                "tuned_on_originals": tune,
                "judged_on_originals": seeds,
                "winners": {n: {k: v for k, v in w.items() if k != "params"} for n, w in winners.items()},
                "rows": result,
                "many": wide,
            },
            quiet=True,
        )


def candidates(name: str, count: int) -> list[Params]:
    """The defaults, then draws from the search space."""
    space, rng = get_algorithm(name).config.SPACE, np.random.default_rng([*name.encode()])  # type: ignore[attr-defined]
    drawn = [tuple(sorted((field, kind.draw(rng)) for field, kind in space.items())) for _ in range(count - 1)]
    return [(), *drawn] if space else [()]


def planned(
    asked: UnlearningContext,
    chosen: ForgetSet,
    name: str,
    params: Params,
    index: int,
    device: str,
    only: Sequence[str] = (),
) -> TrialConfig:
    """One trial, with all core measures or only these."""
    return TrialConfig(
        store=asked.store.url,
        algorithm=name,
        params=params,
        forget_set=chosen.name,
        forget=chosen.rows,
        by_class=chosen.by_class,
        index=index,
        measures=tuple(only),
        core=not only,
        device=device,
    )


def ran(asked: UnlearningContext, plan: Sequence[TrialConfig], pool: Any, what: str) -> dict[TrialConfig, Row]:
    """Rows of trials; what fails is printed and missing."""
    found = {}
    with ProgressBar(what) as meter:
        for done, (trial, row) in enumerate(pool.run(run_trial, plan, asked.trial_data), start=1):
            if isinstance(row, dict):
                found[trial] = row
            else:
                print(f"{trial.algorithm} {trial.params} on {trial.index} failed: {row.error}", flush=True)
            meter(done, len(plan), trial.algorithm)
    return found


def best(
    name: str,
    tried: Sequence[Params],
    rows: dict[TrialConfig, Row],
    asked: UnlearningContext,
    chosen: ForgetSet,
    tune: int,
    device: str,
) -> dict[str, Any]:
    """The config with the highest mean ToW on the selection half of validation, and where it touches its space."""

    def tow(params: Params) -> float:
        own = [rows.get(planned(asked, chosen, name, params, i, device, TOW)) for i in range(tune)]
        values = [row["tow_validation"] if row else float("nan") for row in own]
        return float(np.mean(np.nan_to_num(values, nan=0.0)))

    params = max(tried, key=tow)
    config = asdict(resolve_in_store(asked.store, planned(asked, chosen, name, params, 0, device))[-1])
    space = get_algorithm(name).config.SPACE  # type: ignore[attr-defined]
    scores = [tow(one) for one in tried]
    return {
        "params": params,
        "config": config,
        "tow_validation": tow(params),
        "tow_validation_of_trials": scores,
        "searched": list(space),
        "at_boundary": [field for field, kind in space.items() if is_at_boundary(kind, config[field])],
        "diverged": sum(row["status"] == "diverged" for trial, row in rows.items() if trial.algorithm == name),
    }


def measured_on_many(
    asked: UnlearningContext, chosen: ForgetSet, winners: dict[str, Any], many: int, start: int, pool: Any, device: str
) -> dict[str, dict[str, float]]:
    """Measures of many models of every winner; of retrain's, which is a second oracle, as the null."""
    wide = tuple(sorted(select_population_measures([*MEASURES])))
    indices = range(start, start + many)
    plan = {
        n: [planned(asked, chosen, n, winners[n]["params"] if n in winners else (), i, device, wide) for i in indices]
        for n in (*FIXED, *winners)
    }
    found = ran(asked, [trial for own in plan.values() for trial in own], pool, "many")
    kept = {n: [trial for trial in own if trial in found] for n, own in plan.items()}
    return {
        n: measure_population(asked.store, own, kept[ORACLE], asked.trial_data, wide)
        for n, own in kept.items()
        if n != ORACLE
    }


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Mean and interval of every number in the rows."""
    numbers = [column for column, value in rows[0].items() if isinstance(value, float)]
    return {
        "n": len(rows),
        "diverged": sum(row["status"] == "diverged" for row in rows),
        **{column: asdict(estimate_mean([row[column] for row in rows])) for column in (*numbers, "examples")},
    }


def printed(
    result: dict[str, Any], winners: dict[str, Any], wide: dict[str, dict[str, float]], n_forget: int, what: str
) -> None:
    """The table, the oracle on top and the original beneath."""
    console = Console(width=200)
    table = make_table(f"{what}, {n_forget} to forget", ("", "n", *COLUMNS, "at a boundary"))
    order = [ORACLE, *sorted(winners, key=lambda n: -result[n]["tow_test"]["value"]), "retrain", "original"]
    for name in order:
        cells = [in_cell(result[name][column]) for column in COLUMNS if column in result[name]]
        table.add_row(name, str(result[name]["n"]), *cells, ", ".join(winners.get(name, {}).get("at_boundary", [])))
    console.print(table)
    for name, values in wide.items():
        console.print(name, {column: round(value, 4) for column, value in values.items()}, highlight=False)


def in_cell(found: dict[str, float]) -> str:
    """A mean with half of its interval."""
    return f"{found['value']:.3f}" + ("" if np.isnan(found["lo"]) else f" ±{(found['hi'] - found['lo']) / 2:.3f}")


if __name__ == "__main__":
    tyro.cli(main)
