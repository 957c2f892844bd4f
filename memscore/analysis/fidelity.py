"""How well every score of a bank stands in for memorization, and what each costs: SCALE's Table 1 for this bank.

A correlation with an estimate of memorization says less than one with memorization itself, since the estimate is noisy.
So three numbers stand side by side: the correlation as it is, with a bootstrap interval over the models that the
estimate was made from; the same corrected for the estimate's own unreliability; and the overlap of the tops.

Scores made from the same models as the estimate (C-score, attacks) share its noise: their correlation flatters them,
and no correction for independent noise applies. They are marked, and get neither.

Everything that `python -m memscore.fidelity` says of a bank: stand-ins for memorization, skew, signals of risk.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from memscore.analysis.fidelity_plots import plot_lorenz_curves, plot_loss_and_success, plot_proxies
from memscore.analysis.risk_signals import RiskSignals, compute_risk_signals
from memscore.choices import validate_choice
from memscore.estimators.weighted import compute_weighted_scores, count_set_weights
from memscore.pipeline.originals import compute_proxy_seconds, compute_training_seconds, sum_model_seconds
from memscore.proxies.registry import PROXIES
from memscore.proxies.storage import read_stored_inversion
from memscore.score_registry import SCORES
from memscore.seeds import generator
from memscore.statistics.claims import Trend, judge_interval
from memscore.statistics.correlation import (
    compute_interval_from_draws,
    draw_bootstrap_samples,
    group_models_by_block,
    pearson,
    spearman,
    top_overlap,
)
from memscore.statistics.inequality import gini_interval
from memscore.statistics.intervals import Interval
from memscore.statistics.reliability import Reliability, compute_reliability, disattenuate, draw_arm_halves
from memscore.store.json_records import encode_record
from memscore.store.parquet import decode_metadata
from memscore.store.score_files import orient_score
from memscore.store.shards import hash_shards
from memscore.store.store import Store
from memscore.subsets.designs import parse_arm_record

BLOCK_BYTES = 64 * 2**20  # of two blocks as read
MIN_BLOCKS = 10  # with fewer, models are drawn one by one
PAPER_ORDER = ("confidence", "max_confidence", "entropy", "accuracy", "curvature_sign", "holdout")
"""SCALE's Table 1 a (CIFAR-10, ResNet-18) by the size of the correlation: .80, .76, .75, .71, .69, .67."""
PAPER_SIGNS = {"confidence": -1, "max_confidence": -1, "entropy": 1, "accuracy": -1, "curvature_sign": 1, "holdout": 1}
"""As in Table 1, but that its entropy is the mean of sum p log p, the negative of ours."""


@dataclass(frozen=True, kw_only=True)
class ProxyFidelity:
    """One score beside memorization.

    Attributes:
        score: its name.
        shares_models: it is made from the models of the estimate, so its correlation is flattered.
        spearman: with its interval over models, of the score as its column holds it.
        corrected: the same without the noise of the memorization estimate; NaN where that cannot be said.
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
    """A score that can be compared.

    Attributes:
        score: its name.
        shares_models: it is made from the models of the estimate.
        values: as its column holds them, [N].
        direction: +1 where higher is more memorized, -1 where lower is.
    """

    score: str
    shares_models: bool
    values: np.ndarray
    direction: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ProxyComparison:
    """Every score beside memorization.

    Attributes:
        reference: name of the memorization score.
        models: that it was made from.
        by_blocks: whether whole blocks were drawn for the intervals, else single models.
        reliability: of the reference.
        rows: scores, the best stand-in first.
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
    """Compare every fresh score of a bank with the memorization that one arm gives.

    Args:
        store: open, scored.
        arm: name of the arm.
        costs: score -> seconds that it took beyond training, where they are known.
        draws: bootstrap samples of the arm's models.

    Returns:
        The comparison; memorization itself is read from file and must be fresh.
    """
    record = store.arms()[arm]
    reference = f"memorization_{record['suffix']}"
    shards = store.find_valid_shards(arm, verify=False)
    indices, digest = sorted(shards), hash_shards(arm, shards)
    _, memorization = store.score(reference, digest)
    found, drawn, blocks, by_blocks = bootstrap_memorization(store, arm, indices, draws)
    bank_s, training_s = sum_model_seconds(store, arm, indices), compute_training_seconds(store)
    ranked = [rank_defined(sample) for sample in drawn]
    picked = generator(store.manifest.seed, "bootstrap", "examples").integers(0, len(memorization), drawn.shape)
    rows, samples = [], {}
    for one in read_candidates(store, arm, reference, digest):
        values = one.values
        known = ~np.isnan(values) & ~np.isnan(memorization)
        ranks = rankdata(values[known])
        redraw = known.any() and not one.shares_models
        own = [correlate_ranks(sample, values, known, ranks) for sample in ranked] if redraw else []
        if not one.shares_models and get_registry_name(one.score) in PAPER_SIGNS:
            both = pair_samples(drawn, values, picked)
            samples[one.score] = np.array([spearman(*sample[:, rows]) for sample, rows in both])
        r = spearman(values[known], memorization[known])
        seconds = costs.get(one.score, float("nan"))
        rows.append(
            ProxyFidelity(
                score=one.score,
                shares_models=one.shares_models,
                spearman=compute_interval_from_draws(r, np.array(own), blocks),
                corrected=float("nan") if one.shares_models else disattenuate(r, found.spearman_full),
                pearson=pearson(values, memorization),
                top=top_overlap(values * one.direction, memorization),
                seconds=seconds,
                of_bank=seconds / bank_s if bank_s else float("nan"),
                of_training=seconds / training_s,
            )
        )
    rows.sort(key=lambda row: -np.nan_to_num(abs(row.spearman.value), nan=-1))
    return ProxyComparison(
        reference=reference,
        models=len(indices),
        by_blocks=by_blocks,
        reliability=found,
        rows=rows,
        trends=compute_scale_trends(rows, samples, blocks),
        bank_s=bank_s,
        training_s=training_s,
    )


def bootstrap_memorization(
    store: Store, arm: str, indices: Sequence[int], draws: int
) -> tuple[Reliability, np.ndarray, int, bool]:
    """Memorization from bootstrap samples and from halves of the models, in one pass over the bank.

    Args:
        store: open.
        arm: name of the arm.
        indices: its valid models, rising.
        draws: bootstrap samples.

    Returns:
        The reliability; memorization of each sample [draws, N]; how many blocks (or models) were drawn from; whether
        blocks were. With fewer than MIN_BLOCKS blocks models are drawn one by one: that leaves out what the design
        gains, so intervals are rather too wide.
    """
    block = parse_arm_record(store.arms()[arm]).models_per_block
    numbers = np.asarray(indices) // block
    by_blocks = len(np.unique(numbers)) >= MIN_BLOCKS
    members = group_models_by_block(numbers if by_blocks else np.arange(len(indices)))
    samples = draw_bootstrap_samples(members, generator(store.manifest.seed, "bootstrap", arm), draws)
    halves = draw_arm_halves(store.manifest.seed, arm, numbers)
    weights = count_set_weights([*samples, *itertools.chain.from_iterable(halves)], len(indices))
    parts = [
        compute_weighted_scores(weights, b.columns)["memorization"]
        for b in store.read_blocks(arm, indices, ["member", "correct"], max_bytes=BLOCK_BYTES)
    ]
    each = np.concatenate(parts, axis=1)
    pairs = list(zip(each[draws::2], each[draws + 1 :: 2], strict=True))
    return compute_reliability(pairs), each[:draws], len(members), by_blocks


def read_candidates(store: Store, arm: str, reference: str, digest: str) -> Iterator[Candidate]:
    """Scores that can be compared with an arm's memorization, each file read once.

    Args:
        store: open.
        arm: name of the arm.
        reference: its memorization.
        digest: hash_shards of the arm, which scores made from it must carry.

    Yields:
        By name; scores of other arms, and those over several, are left out.

    Raises:
        ValueError: a score of the arm that is stale; names the command that renews it.
    """
    for file in store.folder.names("scores"):
        name = file.removesuffix(".parquet")
        if name != reference:
            table = store.read_score(name)
            metadata = decode_metadata(table.schema)
            of = metadata.get("arm", metadata.get("models_of"))
            if of in {arm, "originals"}:
                store.require_fresh(name, table, digest if "arm" in metadata else None)
                values, direction = read_column_values(table, name)
                yield Candidate(score=name, shares_models=of == arm, values=values, direction=direction)


def read_column_values(table: pa.Table, name: str) -> tuple[np.ndarray, int]:
    """A score as its column holds it, float64 [N], and its direction; ValueError if it has none."""
    direction = int(decode_metadata(table.schema.field(name))["direction"])
    return orient_score(table, name)[1] * direction, direction


def rank_defined(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Defined examples and, among them, their ranks."""
    defined = ~np.isnan(values)
    return defined, rankdata(values[defined])


def correlate_ranks(
    sample: tuple[np.ndarray, np.ndarray], values: np.ndarray, known: np.ndarray, ranks: np.ndarray
) -> float:
    """Spearman of a ranked sample with values.

    Args:
        sample: of rank_defined.
        values: [N].
        known: bool [N], where they are defined.
        ranks: of values[known], which serve all samples that are defined there and nowhere else.

    Returns:
        The correlation.
    """
    defined, sample_ranks = sample
    if np.array_equal(defined, known):
        return pearson(sample_ranks, ranks)
    both = defined & known
    whole = np.full(len(values), np.nan)
    whole[defined] = sample_ranks
    return spearman(whole[both], values[both])


def pair_samples(drawn: np.ndarray, values: np.ndarray, picked: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each sample of memorization beside the values, [2, N], with the examples drawn for it."""
    for sample, rows in zip(drawn, picked, strict=True):
        yield np.stack([sample, values]), rows


def compute_scale_trends(rows: Sequence[ProxyFidelity], samples: Mapping[str, np.ndarray], blocks: int) -> list[Trend]:
    """SCALE's Table 1: the sign of each proxy's correlation, and their order by size.

    Args:
        rows: the scores.
        samples: of each proxy its correlation in bootstrap samples of models and of examples: a claim about proxies
            must not rest on these examples.
        blocks: how many blocks of models were drawn from.

    Returns:
        Claims with intervals over models and examples, and verdicts.
    """
    by_stem = {get_registry_name(row.score): row for row in rows if not row.shares_models}
    trends = []
    for stem, sign in PAPER_SIGNS.items():
        if stem in by_stem:
            r = compute_interval_from_draws(by_stem[stem].spearman.value, samples[by_stem[stem].score], blocks)
            claim = f"{stem} {'falls' if sign < 0 else 'rises'} with memorization"
            trends.append(
                Trend(
                    claim=claim,
                    value=r,
                    verdict=judge_interval(Interval(value=sign * r.value, **flip_interval(r, sign))),
                )
            )
    for first, second in itertools.combinations([stem for stem in PAPER_ORDER if stem in by_stem], 2):
        a, b = (by_stem[stem] for stem in (first, second))
        difference = abs(a.spearman.value) - abs(b.spearman.value)
        drawn = np.abs(samples[a.score]) - np.abs(samples[b.score])
        gap = compute_interval_from_draws(difference, drawn, blocks)
        trends.append(Trend(claim=f"|{first}| > |{second}|", value=gap, verdict=judge_interval(gap)))
    return trends


def flip_interval(interval: Interval, sign: int) -> dict[str, float]:
    """The ends of an interval after a change of sign."""
    lo, hi = sorted((sign * interval.lo, sign * interval.hi)) if not np.isnan(interval.lo) else (np.nan, np.nan)
    return {"lo": float(lo), "hi": float(hi)}


def get_registry_name(score: str) -> str:
    """The entry of SOURCES that a proxy's score is of."""
    stem = score.removeprefix("events_")
    return stem if stem in SCORES else score


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """What a bank says of its own scores.

    Attributes:
        suffix: of the arm.
        standings: every score beside memorization.
        gini: how unequally memorization and each proxy are spread over the examples (SCALE, Table 3), oriented.
        signals: one for each risk score that the bank has.
    """

    suffix: str
    standings: ProxyComparison
    gini: dict[str, Interval]
    signals: list[RiskSignals]


@threadpool_limits.wrap(limits=1, user_api="blas")  # type: ignore[untyped-decorator]
def compare_scores(store: Store, arm: str | None = None, *, draws: int = 200) -> Comparison:
    """Compare the scores of a bank; nothing is written.

    Args:
        store: open, scored.
        arm: name or suffix of the arm whose memorization is the reference; may be left out where there is one.
        draws: bootstrap samples of the models.

    Returns:
        The comparison.

    Raises:
        ValueError: no such arm, several without one named, no scores, or stale ones.
    """
    name = select_scored_arm(store, arm)
    suffix = store.arms()[name]["suffix"]
    found = compare_proxies(store, name, compute_score_seconds(store), draws=draws)
    proxies = [row.score for row in found.rows if not row.shares_models]
    gini = {}
    for score in (found.reference, *proxies):
        values = store.score(score)[1]
        gini[score] = gini_interval(values, generator(store.manifest.seed, "bootstrap", score))
    keys = find_original_keys(store)
    known = {row.score for row in found.rows}
    success = f"attack_success_{suffix}"
    risks = [risk for risk in (success, "inversion_psnr") if risk in known] if success in known and keys else []
    signals = [compute_risk_signals(store, risk, keys, success) for risk in risks]
    return Comparison(suffix=suffix, standings=found, gini=gini, signals=signals)


def select_scored_arm(store: Store, arm: str | None) -> str:
    """The name of an arm that has memorization scores."""
    known = {file.removesuffix(".parquet") for file in store.folder.names("scores")}
    scored = {name: record["suffix"] for name, record in store.arms().items()}
    scored = {name: suffix for name, suffix in scored.items() if f"memorization_{suffix}" in known}
    if not scored:
        raise ValueError(
            f"{store.folder.display_name} has no memorization scores to compare with; `python -m memscore.estimate "
            "--store "
            f"{store.folder.display_name}` makes them"
        )
    by_suffix = {suffix: name for name, suffix in scored.items()}
    if arm is not None:
        wanted = validate_choice("arm", arm, [*scored, *by_suffix])
        return by_suffix.get(wanted, wanted)
    if len(scored) > 1:
        raise ValueError(f"the bank has several arms, so say which: --arm {' or --arm '.join(sorted(scored))}")
    return next(iter(scored))


def find_original_keys(store: Store) -> list[str]:
    """Of the models trained on everything whose outputs are on file."""
    receipts = sorted((name, receipt) for name, receipt in store.receipts().items() if name.startswith("original-"))
    keys = [receipt["key"] for _, receipt in receipts if not receipt.get("removed") and not receipt["diverged"]]
    return [key for key in keys if store.has_outputs(key)]


def compute_score_seconds(store: Store) -> dict[str, float]:
    """Score -> median seconds on one original, beyond its training."""
    timed = compute_proxy_seconds(store, read_stored_inversion(store))
    return {score: seconds for name, seconds in timed.items() for score in PROXIES[name].scores}


def write_comparison(store: Store, found: Comparison) -> list[str]:
    """Figures and numbers under reports/.

    Args:
        store: open.
        found: what compare returned.

    Returns:
        The files written.
    """
    reference, suffix = found.standings.reference, found.suffix
    oriented = {name: store.score(name)[1] for name in found.gini}
    names = [row.score for row in found.standings.rows if not row.shares_models]
    proxies = {name: read_column_values(store.read_score(name), name)[0] for name in names}
    title = f"{store.manifest.data}, {found.standings.models} models, {suffix}"
    files = {
        f"reports/lorenz_{suffix}.png": plot_lorenz_curves(oriented, found.gini, title),
        f"reports/fidelity_{suffix}.json": encode_record(asdict(found)),
    }
    if proxies:
        spearman = {row.score: row.spearman.value for row in found.standings.rows}
        files[f"reports/proxies_{suffix}.png"] = plot_proxies(oriented[reference], proxies, spearman, title)
    for signals in found.signals:
        files[f"reports/loss_and_{signals.risk}.png"] = plot_loss_and_success(signals, title)
    for path, content in files.items():
        store.folder.replace(path, content)
    return list(files)
