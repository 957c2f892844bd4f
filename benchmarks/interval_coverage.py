"""Claim: the 95 % intervals that memscore prints cover 92 to 99 % of the time, and are not much wider than needed.

    python -m benchmarks.interval_coverage [--repetitions 200] [--large] [--quick]

Data are drawn again and again from populations whose truth is known: Gaussian scores for areas and rates, banks of
models with a common shift of each model for what is over models, skewed scores for inequality. Coverage is the share of
repetitions whose interval holds the truth; its Monte-Carlo error at 200 repetitions is .015, and .007 at the 1,000 of
areas and rates. Width is the mean width over that of the central 95 % of the estimates. Where the truth has no closed
form (means over targets, attack success, correlations from a number of models) it is the mean of all repetitions, so
other draws of the models on these examples. `before` are the formulas of memscore 0.1.0, typed again here; null where
they are the same.

tests/memscore/statistics/test_coverage.py runs the same cells, with the same seed, and fails outside of .92 to .99 or
above a width of 1.5. The product's constants were chosen on banks of 400 examples with other seeds; the seed here is
the first that was tried.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tyro
from scipy.special import expit, logit, stdtrit
from scipy.stats import binomtest, norm, rankdata

from benchmarks.results_file import save
from memscore.analysis.risk_signals import bootstrap_spearman, compute_difference, compute_mean_interval
from memscore.estimators.attack_success import attack_success
from memscore.estimators.cscore import cscore
from memscore.estimators.lira import combine_prior_sums, compute_prior_sums, lira_scores
from memscore.estimators.memorization import MEMORIZATION
from memscore.estimators.shadow_models import ShadowModels, find_blocks_of_shadows
from memscore.estimators.statistic import compute_table, compute_weighted_values, count_set_weights
from memscore.statistics.correlation import (
    compute_interval_from_draws,
    draw_bootstrap_samples,
    pearson,
    spearman,
    undo_attenuation,
)
from memscore.statistics.inequality import gini, gini_interval
from memscore.statistics.means import estimate_mean
from memscore.statistics.roc import auc_interval, compute_target_means, delong_variance, tpr_at_fpr
from memscore.subsets.designs import Arm, draw_membership

SEED, Z = 20, norm.ppf(0.975)
LEAST, MOST, WIDEST = 0.92, 0.99, 1.5
Ends = tuple[np.ndarray, np.ndarray]


class Estimates(NamedTuple):
    """What the repetitions of a cell gave: values [R] or [R, N] and the ends of both intervals, of that shape.

    The truth is a number or [N]; None for the mean of the values.
    """

    values: np.ndarray
    now: Ends
    before: Ends | None
    truth: np.ndarray | float | None


class Coverage(NamedTuple):
    """Coverage and width of an interval."""

    coverage: float
    width: float


class Cell(NamedTuple):
    """One population, which gives the estimates of one or several intervals.

    Attributes:
        case: in words.
        simulate: (rng, repetitions) -> interval -> Estimates.
        conservative: interval -> why it may cover more than 99 % or be wider than 1.5 times in this cell.
        times: how many times the usual repetitions, where they are cheap.
    """

    case: str
    simulate: Callable[[np.random.Generator, int], dict[str, Estimates]]
    conservative: Mapping[str, str] = {}
    times: int = 1


def measure(values: np.ndarray, ends: Ends, truth: np.ndarray | float | None) -> Coverage:
    """Compute coverage, and the mean width over that of the central 95 % of the estimates."""
    lo, hi = ends
    truth = np.nanmean(values, axis=0) if truth is None else truth
    # an interval that does not exist in a repetition is left out, with its value
    defined = ~np.isnan(lo)
    central = np.nanquantile(values, 0.975, axis=0) - np.nanquantile(values, 0.025, axis=0)
    covered = ((lo <= truth + 1e-9) & (truth - 1e-9 <= hi))[defined]
    return Coverage(float(covered.mean()), float((hi - lo)[defined].mean() / np.mean(central)))


def repeat(draw: Callable[[], tuple[Any, ...]], repetitions: int) -> list[np.ndarray]:
    """Repeat a draw of (value, lo, hi, lo before, hi before), and transpose."""
    return [np.array(column) for column in zip(*(draw() for _ in range(repetitions)), strict=True)]


def old_wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's interval without its modification."""
    interval = binomtest(k, n).proportion_ci(method="wilson")
    return interval.low, interval.high


def old_wilson_arrays(k: np.ndarray, n: np.ndarray) -> Ends:
    """The same, of arrays."""
    middle, half = (k + Z**2 / 2) / (n + Z**2), Z * np.sqrt(k * (n - k) / n + Z**2 / 4) / (n + Z**2)
    return middle - half, middle + half


def simulate_rate(
    fpr: float, positives: int, negatives: int, distance: float
) -> Callable[[np.random.Generator, int], dict[str, Estimates]]:
    """TPR at a fixed FPR between two Gaussians; before: Wilson's for the positives at a threshold treated as known."""
    truth, positive = float(norm.cdf(distance - norm.isf(fpr))), np.arange(positives + negatives) < positives

    def simulate(rng: np.random.Generator, repetitions: int) -> dict[str, Estimates]:
        def draw() -> tuple[float, ...]:
            rate = tpr_at_fpr(rng.normal(size=len(positive)) + distance * positive, positive, fpr)
            return (rate.value, rate.lo, rate.hi, *old_wilson(rate.true_positives, positives))

        value, lo, hi, old_lo, old_hi = repeat(draw, repetitions)
        return {"TPR at a fixed FPR": Estimates(value, (lo, hi), (old_lo, old_hi), truth)}

    return simulate


def simulate_area(
    positives: int, negatives: int, distance: float, sd: float = 1.0
) -> Callable[[np.random.Generator, int], dict[str, Estimates]]:
    """AUC between N(distance, sd^2) and N(0, 1); before: DeLong's error on the scale of logits."""
    truth, positive = float(norm.cdf(distance / np.hypot(1, sd))), np.arange(positives + negatives) < positives

    def simulate(rng: np.random.Generator, repetitions: int) -> dict[str, Estimates]:
        def draw() -> tuple[float, ...]:
            scores = rng.normal(size=len(positive)) * np.where(positive, sd, 1) + distance * positive
            area, variance = auc_interval(scores, positive), delong_variance(scores, positive)
            fewer = min(positives, negatives)
            if area.value in {0, 1}:
                return (area.value, area.lo, area.hi, *old_wilson(round(area.value * fewer), fewer))
            reach = Z * np.sqrt(variance) / (area.value * (1 - area.value))
            return (area.value, area.lo, area.hi, *expit(logit(area.value) + np.array([-reach, reach])))

        value, lo, hi, old_lo, old_hi = repeat(draw, repetitions)
        return {"AUC": Estimates(value, (lo, hi), (old_lo, old_hi), truth)}

    return simulate


class Population(NamedTuple):
    """Examples [N] whose logit confidence is Gaussian, higher by `own` in models trained on them."""

    mean: np.ndarray
    own: np.ndarray
    sd: np.ndarray
    shift: float

    def draw_bank(self, arm: Arm, models: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw confidence and member [M, N]; each model shifts all of its confidences."""
        n, clusters = len(self.mean), np.arange(len(self.mean)) // 12
        member = draw_membership(
            arm, range(models), n, clusters if arm.design == "orthogonal" else None, seed=int(rng.integers(2**31))
        )
        noise = self.sd * rng.normal(size=member.shape) + rng.normal(0, self.shift, (models, 1))
        return self.mean + member * self.own + noise, member

    def compute_shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Compute how many models are right about each example, with and without it [N]."""
        spread = np.hypot(self.sd, self.shift)
        return norm.cdf((self.mean + self.own) / spread), norm.cdf(self.mean / spread)


def draw_population(rng: np.random.Generator, n: int, shift: float) -> Population:
    """Draw examples of which a tenth are hard, and most are memorized a little."""
    return Population(rng.normal(0.5, 2, n), abs(rng.normal(0, 0.9, n)), 0.6 + 0.6 * rng.random(n), shift)


def simulate_bank(
    design: str, models: int, shift: float, examples: int = 300
) -> Callable[[np.random.Generator, int], dict[str, Estimates]]:
    """Means over targets, attack success, memorization and C-score of whole banks of the same examples."""
    arm = Arm(design=design, block=None if design == "iid" else 16)
    blocks = find_blocks_of_shadows(range(models), arm.models_per_block) if design == "orthogonal" else None

    def simulate(rng: np.random.Generator, repetitions: int) -> dict[str, Estimates]:
        population = draw_population(rng, examples, shift)
        p_in, p_out = population.compute_shares()
        rows: dict[str, list[tuple[Any, ...]]] = {
            name: []
            for name in ("mean AUC over targets", "mean TPR over targets", "attack success", "memorization", "C-score")
        }
        for _ in range(repetitions):
            confidence, member = population.draw_bank(arm, models, rng)
            shadows = ShadowModels.from_sample(confidence, arm.keep, blocks)
            sums = compute_prior_sums(confidence, member, shadows)
            online, _ = lira_scores(confidence, member, combine_prior_sums([sums], shadows))
            for name, key in (("mean AUC over targets", "auc"), ("mean TPR over targets", "tpr_at_0.01")):
                mean = compute_target_means(online, member)[key]
                each = mean.per_target[~np.isnan(mean.per_target)]
                reach = stdtrit(len(each) - 1, 0.975) * each.std(ddof=1) / np.sqrt(len(each))
                rows[name].append((mean.value, mean.lo, mean.hi, mean.value - reach, mean.value + reach))
            table = attack_success(online, member)
            hits = np.rint(np.nan_to_num(table["value"]) * table["n"])
            with np.errstate(invalid="ignore"):
                rows["attack success"].append((
                    *(table[key] for key in ("value", "lo", "hi")),
                    *old_wilson_arrays(hits, table["n"]),
                ))
                correct = confidence > 0
                table, outside = compute_table(MEMORIZATION, correct, member), cscore(correct, member)
                n_in, n_out = table["n_in"], table["n_out"]
                share_in, share_out = (correct & member).sum(0) / n_in, (correct & ~member).sum(0) / n_out
                (lo_in, hi_in), (lo_out, hi_out) = (
                    old_wilson_arrays(share * n, n) for share, n in ((share_in, n_in), (share_out, n_out))
                )
            old = (
                table["value"] - np.hypot(share_in - lo_in, hi_out - share_out),
                table["value"] + np.hypot(hi_in - share_in, share_out - lo_out),
            )
            rows["memorization"].append((*(table[key] for key in ("value", "lo", "hi")), *old))
            rows["C-score"].append((*(outside[key] for key in ("value", "lo", "hi")), lo_out, hi_out))
        # most examples of a bank are right in every model: there all intervals hold the truth, and say little
        uncertain = {"memorization": (p_in - p_out > 0.05) & (p_out > 0.02), "C-score": (p_out > 0.02) & (p_out < 0.98)}
        truths = {"memorization": p_in - p_out, "C-score": p_out}
        estimates = {}
        for name, drawn in rows.items():
            columns = [np.array(column) for column in zip(*drawn, strict=True)]
            truth = truths.get(name)
            if name in uncertain:
                columns, truth = [column[:, uncertain[name]] for column in columns], truth[uncertain[name]]
            estimates[name] = Estimates(columns[0], (columns[1], columns[2]), (columns[3], columns[4]), truth)
        return estimates

    return simulate


def simulate_fidelity(
    design: str, models: int, shift: float, examples: int = 300, draws: int = 100
) -> Callable[[np.random.Generator, int], dict[str, Estimates]]:
    """Spearman of memorization and a proxy, over models; before: percentiles of the draws about their mean."""
    arm = Arm(design=design, block=None if design == "iid" else 16)

    def simulate(rng: np.random.Generator, repetitions: int) -> dict[str, Estimates]:
        population = draw_population(rng, examples, shift)
        p_in, p_out = population.compute_shares()
        proxy = rankdata(p_in - p_out + 0.3 * rng.normal(size=examples))

        def draw() -> tuple[float, ...]:
            confidence, member = population.draw_bank(arm, models, rng)
            samples = draw_bootstrap_samples([np.array([m]) for m in range(models)], rng, draws)
            weights = count_set_weights([np.arange(models), *samples], models)
            columns = {"member": member, "correct": confidence > 0}
            estimates = compute_weighted_values({"memorization": MEMORIZATION}, weights, columns)["memorization"]
            r, *drawn = (
                pearson(rankdata(each), proxy) if not np.isnan(each).any() else spearman(each, proxy)
                for each in estimates
            )
            interval = compute_interval_from_draws(r, undo_attenuation(r, np.array(drawn)), models)
            z = np.arctanh(drawn)
            reach = np.quantile(z - z.mean(), [0.025, 0.975]) * np.sqrt(models / (models - 1))
            return (r, interval.lo, interval.hi, *np.tanh(np.arctanh(r) + reach))

        value, lo, hi, old_lo, old_hi = repeat(draw, repetitions)
        return {"Spearman of fidelity": Estimates(value, (lo, hi), (old_lo, old_hi), None)}

    return simulate


def simulate_claims(
    models: int, examples: int, draws: int = 100
) -> Callable[[np.random.Generator, int], dict[str, Estimates]]:
    """Difference of two proxies' correlations with memorization, over models and examples, both of which are drawn."""

    def simulate(rng: np.random.Generator, repetitions: int) -> dict[str, Estimates]:
        def draw() -> tuple[float, ...]:
            population = draw_population(rng, examples, 0.4)
            truth = np.subtract(*population.compute_shares())
            proxies = [truth + sd * rng.normal(size=examples) for sd in (0.2, 0.4)]
            confidence, member = population.draw_bank(Arm(design="iid", block=None), models, rng)
            samples = draw_bootstrap_samples([np.array([m]) for m in range(models)], rng, draws)
            weights = count_set_weights([np.arange(models), *samples], models)
            columns = {"member": member, "correct": confidence > 0}
            whole, *drawn = compute_weighted_values({"memorization": MEMORIZATION}, weights, columns)["memorization"]
            rows = rng.integers(0, examples, (draws, examples))
            values = [spearman(whole, proxy) for proxy in proxies]
            first, second = (
                np.array([spearman(each[row], proxy[row]) for each, row in zip(drawn, rows, strict=True)])
                for proxy in proxies
            )
            gap = compute_interval_from_draws(values[0] - values[1], first - second, models)
            return gap.value, gap.lo, gap.hi

        value, lo, hi = repeat(draw, repetitions)
        return {"difference of correlations": Estimates(value, (lo, hi), None, None)}

    return simulate


def simulate_ranks(n: int) -> Callable[[np.random.Generator, int], dict[str, Estimates]]:
    """Spearman of loss and risk over examples: Gaussian with correlation .5, whose Spearman is known."""

    def simulate(rng: np.random.Generator, repetitions: int) -> dict[str, Estimates]:
        def draw() -> tuple[float, ...]:
            x, noise = rng.normal(size=(2, n))
            interval = bootstrap_spearman(x, 0.5 * x + np.sqrt(0.75) * noise, rng, samples=200)
            return interval.value, interval.lo, interval.hi

        value, lo, hi = repeat(draw, repetitions)
        return {"Spearman of loss and risk": Estimates(value, (lo, hi), None, 6 / np.pi * np.arcsin(0.25))}

    return simulate


def simulate_gini(n: int) -> Callable[[np.random.Generator, int], dict[str, Estimates]]:
    """Inequality of a score of which most values are near 0: Beta(.3, 3), whose coefficient is of 10^6 values."""
    truth = gini(np.random.default_rng(0).beta(0.3, 3, 10**6))

    def simulate(rng: np.random.Generator, repetitions: int) -> dict[str, Estimates]:
        intervals = [gini_interval(rng.beta(0.3, 3, n), rng, shift=0.0, draws=200) for _ in range(repetitions)]
        value, lo, hi = (np.array([getattr(each, name) for each in intervals]) for name in ("value", "lo", "hi"))
        return {"Gini": Estimates(value, (lo, hi), None, truth)}

    return simulate


def simulate_means(n: int) -> Callable[[np.random.Generator, int], dict[str, Estimates]]:
    """Mean attack success of a group of examples, and the difference of two groups: skewed shares, Beta(5, 2)."""

    def simulate(rng: np.random.Generator, repetitions: int) -> dict[str, Estimates]:
        x, y = rng.beta(5, 2, (repetitions, n)), rng.beta(2, 2, (repetitions, n))
        estimates = {}
        for name, intervals, truth in (
            ("mean of a group", [compute_mean_interval(row) for row in x], 5 / 7),
            ("difference of groups", [compute_difference(*rows) for rows in zip(x, y, strict=True)], 5 / 7 - 1 / 2),
        ):
            value, lo, hi = (np.array([getattr(each, end) for each in intervals]) for end in ("value", "lo", "hi"))
            estimates[name] = Estimates(value, (lo, hi), None, truth)
        return estimates

    return simulate


def simulate_seeds(n: int) -> Callable[[np.random.Generator, int], dict[str, Estimates]]:
    """Mean of a measure over trials of n originals, Gaussian."""

    def simulate(rng: np.random.Generator, repetitions: int) -> dict[str, Estimates]:
        intervals = [estimate_mean(row) for row in rng.normal(size=(repetitions, n))]
        value, lo, hi = (np.array([getattr(each, end) for each in intervals]) for end in ("value", "lo", "hi"))
        return {"mean over originals": Estimates(value, (lo, hi), None, 0.0)}

    return simulate


FEW_FALSE = (
    "one or two allowed false positives: with none, which has a probability of .1 to .4, the rate may be any lower"
)
FEW_TRUE = "fewer than three true positives are expected, and counts are whole"
FEW_POSITIVES = "few positives, an area near 1: most samples are all but perfectly ordered, and show no spread"
FEW_SEEDS = "t with n - 1 degrees of freedom: the width of a t interval of 3 values is 1.9 times that of the means"
ALL_AGREE = "models agree on many examples, where a count of 0 or n has an interval and the estimates have no spread"

CELLS: dict[str, Cell] = {
    "rate-.001-1250-1": Cell("FPR .1 %, d 1, 1,250 a side", simulate_rate(0.001, 1250, 1250, 1), times=3),
    "rate-.001-1250-2": Cell("FPR .1 %, d 2, 1,250 a side", simulate_rate(0.001, 1250, 1250, 2), times=3),
    "rate-.01-100-1": Cell("FPR 1 %, d 1, 100 a side", simulate_rate(0.01, 100, 100, 1), times=3),
    "rate-.01-600-0": Cell("FPR 1 %, d 0, 600 a side", simulate_rate(0.01, 600, 600, 0), times=3),
    "rate-.01-600-2": Cell("FPR 1 %, d 2, 600 a side", simulate_rate(0.01, 600, 600, 2), times=3),
    "rate-.01-1250-3": Cell("FPR 1 %, d 3, 1,250 a side", simulate_rate(0.01, 1250, 1250, 3), times=3),
    "rate-.01-uneven": Cell("FPR 1 %, d 1, 150 positives, 1,200 negatives", simulate_rate(0.01, 150, 1200, 1), times=3),
    "area-20-400-2": Cell("20 positives, 400 negatives, d 2", simulate_area(20, 400, 2), times=3),
    "area-32-608-2.7": Cell(
        "32 positives, 608 negatives, d 2.7", simulate_area(32, 608, 2.7), {"AUC": FEW_POSITIVES}, times=3
    ),
    "area-120-1080-2.7": Cell("120 positives, 1,080 negatives, d 2.7", simulate_area(120, 1080, 2.7), times=3),
    "area-25-25-1": Cell("25 a side, d 1", simulate_area(25, 25, 1), times=3),
    "area-wide": Cell("32 positives of sd 2, 608 negatives, d 2", simulate_area(32, 608, 2, 2.0), times=3),
    "area-600-0": Cell("600 a side, d 0", simulate_area(600, 600, 0), times=3),
    "bank-exact-16": Cell("16 models, exact, shift .4", simulate_bank("exact", 16, 0.4), {"memorization": ALL_AGREE}),
    "bank-iid-32": Cell("32 models, iid, shift .4", simulate_bank("iid", 32, 0.4), {"memorization": ALL_AGREE}),
    "fidelity-iid-16": Cell("16 models, iid, shift .4", simulate_fidelity("iid", 16, 0.4)),
    "fidelity-iid-48": Cell("48 models, iid, shift .4", simulate_fidelity("iid", 48, 0.4)),
    "gini": Cell("400 examples", simulate_gini(400)),
    "ranks": Cell("100 examples, correlation .5", simulate_ranks(100)),
    "means": Cell("40 examples", simulate_means(40)),
    "seeds-3": Cell("3 originals", simulate_seeds(3), {"mean over originals": FEW_SEEDS}),
}
"""Populations of at most 1,250 examples a side, which make test simulates."""

LARGE_CELLS: dict[str, Cell] = {
    "claims-16": Cell("16 models, 300 examples", simulate_claims(16, 300)),
    "claims-64": Cell("64 models, 300 examples", simulate_claims(64, 300)),
    **{
        f"large-rate-{fpr}-{n}-{distance}": Cell(
            f"FPR {100 * fpr:g} %, d {distance}, {n:,} a side",
            simulate_rate(fpr, n, n, distance),
            {"TPR at a fixed FPR": FEW_FALSE} if fpr * n < 3 else {},
        )
        for fpr in (0.001, 0.01)
        for distance in (0, 1, 2, 3)
        for n in (2500, 5000, 25_000)
    },
    **{
        f"few-rate-{fpr}-{n}-{distance}": Cell(
            f"FPR {100 * fpr:g} %, d {distance}, {n:,} a side",
            simulate_rate(fpr, n, n, distance),
            {"TPR at a fixed FPR": FEW_FALSE},
        )
        for fpr, n in ((0.001, 1250), (0.01, 100), (0.01, 250))
        for distance in (0, 3)
    },
    "rate-few-true": Cell(
        "FPR .1 %, d 0, 200 positives, 5,000 negatives",
        simulate_rate(0.001, 200, 5000, 0),
        {"TPR at a fixed FPR": FEW_TRUE},
    ),
    **{
        f"large-area-{m}-{n}-{distance}": Cell(
            f"{m} positives, {n:,} negatives, d {distance}",
            simulate_area(m, n, distance),
            {"AUC": FEW_POSITIVES} if distance >= (2 if m <= 32 else 3 if m <= 60 else 9) else {},
            times=3,
        )
        for m, n in ((10, 1000), (20, 400), (32, 608), (60, 1140), (120, 2280), (5000, 5000))
        for distance in (0, 1, 2, 2.7, 3.5)
    },
    **{
        f"large-bank-{design}-{models}-{shift}": Cell(
            f"{models} models, {design}, shift {shift}",
            simulate_bank(design, models, shift),
            {"memorization": ALL_AGREE, "C-score": ALL_AGREE, "mean TPR over targets": FEW_FALSE},
            times=4,
        )
        for design, models, shift in (
            *(("iid", 8, 0.4), ("iid", 64, 0.4), ("iid", 64, 1.0), ("exact", 64, 0.0), ("exact", 128, 0.4)),
            *(("orthogonal", 16, 0.4), ("orthogonal", 64, 0.4)),
        )
    },
    **{
        f"large-fidelity-{design}-{models}-{shift}-{n}": Cell(
            f"{models} models, {design}, shift {shift}, {n:,} examples",
            simulate_fidelity(design, models, shift, n, 200),
        )
        for n in (400, 1500)
        for design, models, shift in (("iid", 16, 0.0), ("iid", 64, 0.4), ("iid", 64, 1.0), ("orthogonal", 64, 0.4))
    },
}
"""Larger ones, and those whose intervals are wide or cover more for a reason; tests marked slow simulate them."""


def run_cell(name: str, cell: Cell, repetitions: int) -> dict[str, Any]:
    """Simulate a cell: interval -> coverage and width, now and before, with what limits it."""
    # a stream for each cell, so that a cell gives the same alone
    rng = np.random.default_rng([SEED, *name.encode()])
    rows = {}
    for interval, (values, now, before, truth) in cell.simulate(rng, repetitions * cell.times).items():
        rows[interval] = {
            "cell": cell.case,
            "n": repetitions * cell.times,
            "estimate": {"mean": float(np.nanmean(values)), "sd": float(np.mean(np.nanstd(values, axis=0)))},
            "now": measure(values, now, truth)._asdict(),
            "before": None if before is None else measure(values, before, truth)._asdict(),
            "conservative": cell.conservative.get(interval),
        }
    return rows


def passes(row: Mapping[str, Any]) -> bool:
    """Whether an interval covers, and is no wider than it may be."""
    coverage, width = row["now"]["coverage"], row["now"]["width"]
    return coverage >= LEAST and (row["conservative"] is not None or (coverage <= MOST and width <= WIDEST))


def main(repetitions: int = 200, large: bool = False, quick: bool = False) -> None:
    """Simulate all cells and print them.

    Args:
        repetitions: of each cell.
        large: also the cells of the slow tests, some minutes.
        quick: 20 repetitions and nothing written; its numbers mean nothing.
    """
    rows = []
    for name, cell in (CELLS | (LARGE_CELLS if large else {})).items():
        for interval, row in run_cell(name, cell, 20 if quick else repetitions).items():
            rows.append({"interval": interval, **row})
            now, before = (row[key] or {"coverage": np.nan, "width": np.nan} for key in ("now", "before"))
            print(
                f"{interval:24} {row['cell']:45} now {now['coverage']:.3f} x{now['width']:.2f}  "
                f"before {before['coverage']:.3f} x{before['width']:.2f}" + ("" if passes(row) else "  <-"),
                flush=True,
            )
    if not quick:
        save("interval_coverage", {"seed": SEED, "rule": [LEAST, MOST, WIDEST], "rows": rows})


if __name__ == "__main__":
    tyro.cli(main)
