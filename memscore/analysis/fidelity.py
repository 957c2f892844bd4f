"""Compare the scores of a bank: fidelity and cost of memorization proxies (SCALE's Table 1), inequality, risk signals.

The correlation with an estimate of memorization is lower than the one with memorization itself, since the estimate is
noisy. So three numbers are reported: the correlation as it is, with a bootstrap interval over the models that the
estimate was made from; the same extrapolated to infinitely many models; and the overlap of the tops.

Scores made from the same models as the estimate (C-score, attacks) share its noise: their correlation is too high, and
no correction for independent noise applies. They are marked, and get neither interval nor correction.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from memscore.analysis.arms import select_arm
from memscore.analysis.fidelity_plots import plot_lorenz_curves, plot_loss_and_success, plot_proxies
from memscore.analysis.risk_signals import RiskSignals, compute_risk_signals
from memscore.estimators.memorization import MEMORIZATION
from memscore.estimators.statistic import compute_weighted_values, count_set_weights
from memscore.pipeline.originals import (
    compute_event_seconds,
    compute_proxy_seconds,
    compute_training_seconds,
    sum_model_seconds,
)
from memscore.proxies.registry import PROXIES
from memscore.proxies.storage import read_stored_inversions
from memscore.score_registry import EVENT_DIRECTIONS, SCORES
from memscore.seeds import generator
from memscore.statistics.claims import Trend, judge_interval
from memscore.statistics.correlation import (
    compute_interval_from_draws,
    draw_bootstrap_samples,
    group_models_by_block,
    pearson,
    spearman,
    top_overlap,
    undo_attenuation,
)
from memscore.statistics.inequality import gini_interval
from memscore.statistics.intervals import Interval
from memscore.statistics.reliability import (
    Reliability,
    compute_reliability,
    draw_arm_halves,
    extrapolate_correlation,
)
from memscore.store.json_records import encode_record
from memscore.store.parquet import decode_metadata
from memscore.store.score_files import orient_score
from memscore.store.shards import hash_shards
from memscore.store.store import Store
from memscore.subsets.designs import parse_arm_record
from memscore.units import format_count

BLOCK_BYTES = 64 * 2**20  # of two consecutive blocks
MIN_BLOCKS = 10  # with fewer, models are drawn one by one
PAPER_ORDER = ("confidence", "max_confidence", "entropy", "accuracy", "curvature_sign", "holdout")
"""SCALE's Table 1 a (CIFAR-10, ResNet-18) by the size of the correlation: .80, .76, .75, .71, .69, .67."""
PAPER_SIGNS = {"confidence": -1, "max_confidence": -1, "entropy": 1, "accuracy": -1, "curvature_sign": 1, "holdout": 1}
"""As in Table 1, except that its entropy is the mean of sum p log p, the negative of ours."""


@dataclass(frozen=True, kw_only=True)
class ProxyFidelity:
    """The agreement of one score with memorization, and its cost.

    Attributes:
        score: its name.
        shares_models: it is made from the models of the estimate, so its correlation is too high.
        spearman: with its interval over models, of the score as stored in its column.
        corrected: the same without the noise of the memorization estimate; NaN where it is undefined.
        pearson: of the two.
        top: overlap of the oriented tops.
        seconds: of computing it beyond training; NaN where it was not timed apart.
        of_bank: seconds as a share of training the bank.
        of_training: as a share of one training.
    """

    score: str
    shares_models: bool
    spearman: Interval
    corrected: float
    pearson: float
    top: float
    seconds: float
    of_bank: float
    of_training: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A score that can be compared with memorization.

    Attributes:
        score: its name.
        shares_models: it is made from the models of the estimate.
        values: as stored in its column, [N].
        direction: +1 where higher is more memorized, -1 where lower is.
    """

    score: str
    shares_models: bool
    values: np.ndarray
    direction: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ProxyComparison:
    """The agreement of every score with memorization.

    Attributes:
        reference: name of the memorization score.
        models: number of models that it was made from.
        by_blocks: whether whole blocks were drawn for the intervals, else single models.
        reliability: of the reference.
        rows: scores, the best proxy first.
        trends: SCALE's signs and order.
        bank_s: seconds of training the bank, over all its models.
        training_s: median seconds of one training on everything; NaN without originals.
    """

    reference: str
    models: int
    by_blocks: bool
    reliability: Reliability
    rows: list[ProxyFidelity]
    trends: list[Trend]
    bank_s: float
    training_s: float


def compare_proxies(store: Store, arm: str, costs: Mapping[str, float], *, draws: int = 200) -> ProxyComparison:
    """Compare every score of a bank with the memorization score of one arm; ValueError if one of them is stale.

    Costs are seconds beyond training by score, where they were measured; draws are bootstrap samples of the models.
    """
    record = store.arms()[arm]
    reference = f"memorization_{record['suffix']}"
    shards = store.find_valid_shards(arm, verify=False)
    indices, digest = sorted(shards), hash_shards(arm, shards)
    _, memorization = store.score(reference, digest)
    # Memorization from each bootstrap sample of models, [draws, N]. Its ranks do not depend on the compared score, so
    # they are computed once. The same samples of models, and of examples, serve every score: differences between two
    # correlations are then paired.
    reliability, samples, halves, blocks, by_blocks = bootstrap_memorization(store, arm, indices, draws)
    bank_s, training_s = sum_model_seconds(store, arm, indices), compute_training_seconds(store)
    ranked, ranked_halves = ([rank_defined(sample) for sample in estimates] for estimates in (samples, halves))
    drawn_rows = generator(store.manifest.seed, "bootstrap", "examples").integers(0, len(memorization), samples.shape)
    rows, correlations = [], {}
    for candidate in read_candidates(store, arm, reference, digest):
        values = candidate.values
        defined = ~np.isnan(values) & ~np.isnan(memorization)
        ranks = rankdata(values[defined])
        r = spearman(values[defined], memorization[defined])
        # over models, for the correlation's interval; a score from the same models shares their noise and gets none
        independent = defined.any() and not candidate.shares_models
        draws_of_r, halves_r = (
            [correlate_ranks(sample, values, defined, ranks) for sample in estimates if independent]
            for estimates in (ranked, ranked_halves)
        )
        # over models and examples, for the verdicts on SCALE's claims, which must not rest on these examples
        if not candidate.shares_models and get_registry_name(candidate.score) in PAPER_SIGNS:
            correlations[candidate.score] = np.array([
                spearman(sample[drawn], values[drawn]) for sample, drawn in zip(samples, drawn_rows, strict=True)
            ])
        seconds = costs.get(candidate.score, float("nan"))
        rows.append(
            ProxyFidelity(
                score=candidate.score,
                shares_models=candidate.shares_models,
                spearman=compute_interval_from_draws(r, undo_attenuation(r, np.array(draws_of_r)), blocks),
                corrected=extrapolate_correlation(r, float(np.mean(halves_r)) if halves_r else float("nan")),
                pearson=pearson(values, memorization),
                top=top_overlap(values * candidate.direction, memorization),
                seconds=seconds,
                of_bank=seconds / bank_s if bank_s else float("nan"),
                of_training=seconds / training_s,
            )
        )
    # the strongest correlation of either sign first, undefined ones last
    rows.sort(key=lambda row: -np.nan_to_num(abs(row.spearman.value), nan=-1))
    return ProxyComparison(
        reference=reference,
        models=len(indices),
        by_blocks=by_blocks,
        reliability=reliability,
        rows=rows,
        trends=compute_scale_trends(rows, correlations, blocks),
        bank_s=bank_s,
        training_s=training_s,
    )


def bootstrap_memorization(
    store: Store, arm: str, indices: Sequence[int], draws: int
) -> tuple[Reliability, np.ndarray, np.ndarray, int, bool]:
    """Compute memorization from bootstrap samples and from halves of the models, in one pass over the bank.

    Returns the reliability; memorization of each sample, [draws, N], and of each half, [2 * halves, N]; how many blocks
    (or models) were drawn from; and whether whole blocks were.
    """
    # The models of a block balance each other, so whole blocks are drawn. With too few of them models are drawn one by
    # one: that ignores the design's smaller variance, so intervals are too wide rather than too narrow.
    block = parse_arm_record(store.arms()[arm]).models_per_block
    numbers = np.asarray(indices) // block
    by_blocks = len(np.unique(numbers)) >= MIN_BLOCKS
    members = group_models_by_block(numbers if by_blocks else np.arange(len(indices)))
    # how often each model is in each sample and each half: memorization of all of them is one product per block
    samples = draw_bootstrap_samples(members, generator(store.manifest.seed, "bootstrap", arm), draws)
    halves = draw_arm_halves(store.manifest.seed, arm, numbers)
    weights = count_set_weights([*samples, *itertools.chain.from_iterable(halves)], len(indices))
    parts = [
        compute_weighted_values({"memorization": MEMORIZATION}, weights, read.columns)["memorization"]
        for read in store.read_blocks(arm, indices, ["member", "correct"], max_bytes=BLOCK_BYTES)
    ]
    scores = np.concatenate(parts, axis=1)
    # [draws + 2 * halves, N]: the samples, then first and second halves in turn
    pairs = list(zip(scores[draws::2], scores[draws + 1 :: 2], strict=True))
    return compute_reliability(pairs), scores[:draws], scores[draws:], len(members), by_blocks


def read_candidates(store: Store, arm: str, reference: str, digest: str) -> Iterator[Candidate]:
    """Yield the scores that can be compared with an arm's memorization; ValueError if one is stale.

    Those of other arms, and those over several, are left out.
    """
    for file in store.folder.names("scores"):
        name = file.removesuffix(".parquet")
        if name != reference:
            table = store.read_score(name)
            metadata = decode_metadata(table.schema)
            # scores of a whole arm name it as "arm"; means over models, such as proxies, say "models_of"
            models_of = metadata.get("arm", metadata.get("models_of"))
            if models_of in {arm, "originals"}:
                store.require_fresh(name, table, digest if "arm" in metadata else None)
                values, direction = read_column_values(table, name)
                yield Candidate(score=name, shares_models=models_of == arm, values=values, direction=direction)


def read_column_values(table: pa.Table, name: str) -> tuple[np.ndarray, int]:
    """Return a score as stored in its column, float64 [N], and its direction; ValueError if it has none."""
    # orient_score multiplies by the direction, and doing it again undoes that
    direction = int(decode_metadata(table.schema.field(name))["direction"])
    return orient_score(table, name)[1] * direction, direction


def rank_defined(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mask of defined examples, and the ranks of their values."""
    defined = ~np.isnan(values)
    return defined, rankdata(values[defined])


def correlate_ranks(
    sample: tuple[np.ndarray, np.ndarray], values: np.ndarray, values_defined: np.ndarray, ranks: np.ndarray
) -> float:
    """Compute Spearman's correlation of a sample from rank_defined with values, whose ranks are given too."""
    # the usual case, in which nothing is ranked again: both are defined on the same examples
    defined, sample_ranks = sample
    if np.array_equal(defined, values_defined):
        return pearson(sample_ranks, ranks)
    # else both are ranked again on the common examples; ranks of ranks are those of the sample's own values
    both = defined & values_defined
    whole = np.full(len(values), np.nan)
    whole[defined] = sample_ranks
    return spearman(whole[both], values[both])


def compute_scale_trends(
    rows: Sequence[ProxyFidelity], correlations: Mapping[str, np.ndarray], blocks: int
) -> list[Trend]:
    """Check SCALE's Table 1: the sign of each proxy's correlation with memorization, and their order by size.

    Correlations are of each proxy in bootstrap samples of models and of examples, [draws]; the intervals are from them.
    """
    by_stem = {get_registry_name(row.score): row for row in rows if not row.shares_models}
    trends = []
    for stem, sign in PAPER_SIGNS.items():
        if stem in by_stem:
            r = compute_interval_from_draws(by_stem[stem].spearman.value, correlations[by_stem[stem].score], blocks)
            # the interval as measured is reported; the verdict "above 0" is on the one in the claim's direction
            claim = f"{stem} {'falls' if sign < 0 else 'rises'} with memorization"
            trends.append(
                Trend(
                    claim=claim,
                    value=r,
                    verdict=judge_interval(Interval(value=sign * r.value, **flip_interval(r, sign))),
                )
            )
    # every pair in the paper's order: sizes, since some proxies fall with memorization
    for first, second in itertools.combinations([stem for stem in PAPER_ORDER if stem in by_stem], 2):
        a, b = (by_stem[stem] for stem in (first, second))
        difference = abs(a.spearman.value) - abs(b.spearman.value)
        differences = np.abs(correlations[a.score]) - np.abs(correlations[b.score])
        gap = compute_interval_from_draws(difference, differences, blocks)
        trends.append(Trend(claim=f"|{first}| > |{second}|", value=gap, verdict=judge_interval(gap)))
    return trends


def flip_interval(interval: Interval, sign: int) -> dict[str, float]:
    """Return the ends of an interval times the sign, in rising order."""
    lo, hi = sorted((sign * interval.lo, sign * interval.hi)) if not np.isnan(interval.lo) else (np.nan, np.nan)
    return {"lo": float(lo), "hi": float(hi)}


def get_registry_name(score: str) -> str:
    """Return the name under which a proxy's score stands in SCORES."""
    stem = score.removeprefix("events_")
    return stem if stem in SCORES else score


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The comparison of a bank's scores.

    Attributes:
        suffix: of the arm.
        standings: the agreement of every score with memorization; the name is a key of the JSON report.
        gini: how unequally memorization and each proxy are spread over the examples (SCALE, Table 3), oriented.
        signals: one for each risk score that the bank has.
    """

    suffix: str
    standings: ProxyComparison
    gini: dict[str, Interval]
    signals: list[RiskSignals]


@threadpool_limits.wrap(limits=1, user_api="blas")  # type: ignore[untyped-decorator]
def compare_scores(store: Store, arm: str | None = None, *, draws: int = 200) -> Comparison:
    """Compare the scores of a bank with the memorization of one arm, by its name or suffix; nothing is written.

    ValueError for no such arm, several without one named, no scores, or stale ones.
    """
    name = select_scored_arm(store, arm)
    suffix = store.arms()[name]["suffix"]
    receipts = store.receipts()
    proxy_seconds = compute_proxy_seconds(store, read_stored_inversions(store), receipts)
    costs = {score: seconds for proxy, seconds in proxy_seconds.items() for score in PROXIES[proxy].scores}
    # all columns of learning events are recorded together
    event_s = compute_event_seconds(store, receipts)
    for prefix, kind in (("events", "learning events"), ("events_evaluation", "events of evaluation passes")):
        costs |= {f"{prefix}_{column}": event_s[kind] for column in EVENT_DIRECTIONS if kind in event_s}
    fidelity = compare_proxies(store, name, costs, draws=draws)
    proxies = [row.score for row in fidelity.rows if not row.shares_models]
    # each score has a random stream of its own, so its interval does not depend on which others the bank has
    gini = {}
    for score in (fidelity.reference, *proxies):
        values = store.score(score)[1]
        gini[score] = gini_interval(values, generator(store.manifest.seed, "bootstrap", score))
    # RSU's comparisons need attack success, and the outputs of originals for the signals
    keys = find_original_keys(store)
    scores = {row.score for row in fidelity.rows}
    success = f"attack_success_{suffix}"
    names = (success, "inversion_psnr", "inversion_gain")
    risks = [risk for risk in names if risk in scores] if success in scores and keys else []
    signals = [compute_risk_signals(store, risk, keys, success) for risk in risks]
    return Comparison(suffix=suffix, standings=fidelity, gini=gini, signals=signals)


def select_scored_arm(store: Store, arm: str | None) -> str:
    """Return the name of the requested arm, or of the only one that has memorization scores."""
    scores = {file.removesuffix(".parquet") for file in store.folder.names("scores")}
    arms = store.arms()
    scored = {name: record for name, record in arms.items() if f"memorization_{record['suffix']}" in scores}
    if not scored:
        raise ValueError(
            f"{store.folder.display_name} has no memorization scores to compare with; `python -m memscore.estimate "
            f"--store {store.folder.display_name}` makes them"
        )
    return select_arm(store, arm, scored)


def find_original_keys(store: Store) -> list[str]:
    """Return the keys of the models trained on all examples whose outputs are stored."""
    receipts = sorted((name, receipt) for name, receipt in store.receipts().items() if name.startswith("original-"))
    keys = [receipt["key"] for _, receipt in receipts if not receipt.get("removed") and not receipt["diverged"]]
    return [key for key in keys if store.has_outputs(key)]


def write_comparison(store: Store, comparison: Comparison) -> list[str]:
    """Write figures and numbers under reports/; return the paths within the store."""
    fidelity, suffix = comparison.standings, comparison.suffix
    oriented = {name: store.score(name)[1] for name in comparison.gini}
    names = [row.score for row in fidelity.rows if not row.shares_models]
    proxies = {name: read_column_values(store.read_score(name), name)[0] for name in names}
    title = f"{store.manifest.data}, {format_count(fidelity.models, 'model')}, {suffix}"
    files = {
        f"reports/lorenz_{suffix}.png": plot_lorenz_curves(oriented, comparison.gini, title),
        f"reports/fidelity_{suffix}.json": encode_record(asdict(comparison)),
    }
    if proxies:
        correlations = {row.score: row.spearman.value for row in fidelity.rows}
        memorization = oriented[fidelity.reference]
        files[f"reports/proxies_{suffix}.png"] = plot_proxies(memorization, proxies, correlations, title)
    for signals in comparison.signals:
        files[f"reports/loss_and_{signals.risk}.png"] = plot_loss_and_success(signals, title)
    # written once all of them are made: an error in one figure leaves the files of an earlier comparison as they were
    for path, content in files.items():
        store.folder.replace(path, content)
    return list(files)
