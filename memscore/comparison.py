"""Everything that `python -m memscore.fidelity` says of a bank: stand-ins for memorization, skew, signals of risk."""

from dataclasses import asdict, dataclass

from threadpoolctl import threadpool_limits

from memscore.choices import pick
from memscore.pipeline.originals import seconds_of_proxies
from memscore.proxies.registry import PROXIES
from memscore.proxies.storage import inversion_on_file
from memscore.report.fidelity_figures import lorenz_curves, loss_and_success, proxies_beside
from memscore.risk_signals import Signals, risk_signals
from memscore.seeds import generator
from memscore.standing import Standings, as_held, standings
from memscore.statistics.inequality import gini_interval
from memscore.statistics.intervals import Interval
from memscore.store.json_records import sealed
from memscore.store.store import Store


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
    standings: Standings
    gini: dict[str, Interval]
    signals: list[Signals]


@threadpool_limits.wrap(limits=1, user_api="blas")  # type: ignore[untyped-decorator]
def compare(store: Store, arm: str | None = None, *, draws: int = 200) -> Comparison:
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
    name = chosen_arm(store, arm)
    suffix = store.arms()[name]["suffix"]
    found = standings(store, name, seconds_of_scores(store), draws=draws)
    proxies = [row.score for row in found.rows if not row.shares_models]
    gini = {}
    for score in (found.reference, *proxies):
        values = store.score(score)[1]
        gini[score] = gini_interval(values, generator(store.manifest.seed, "bootstrap", score))
    keys = original_keys(store)
    known = {row.score for row in found.rows}
    success = f"attack_success_{suffix}"
    risks = [risk for risk in (success, "inversion_psnr") if risk in known] if success in known and keys else []
    signals = [risk_signals(store, risk, keys, success) for risk in risks]
    return Comparison(suffix=suffix, standings=found, gini=gini, signals=signals)


def chosen_arm(store: Store, arm: str | None) -> str:
    """The name of an arm that has memorization scores."""
    known = {file.removesuffix(".parquet") for file in store.folder.names("scores")}
    scored = {name: record["suffix"] for name, record in store.arms().items()}
    scored = {name: suffix for name, suffix in scored.items() if f"memorization_{suffix}" in known}
    if not scored:
        raise ValueError(
            f"{store.folder.shown} has no memorization scores to compare with; `python -m memscore.estimate --store "
            f"{store.folder.shown}` makes them"
        )
    by_suffix = {suffix: name for name, suffix in scored.items()}
    if arm is not None:
        wanted = pick("arm", arm, [*scored, *by_suffix])
        return by_suffix.get(wanted, wanted)
    if len(scored) > 1:
        raise ValueError(f"the bank has several arms, so say which: --arm {' or --arm '.join(sorted(scored))}")
    return next(iter(scored))


def original_keys(store: Store) -> list[str]:
    """Of the models trained on everything whose outputs are on file."""
    receipts = sorted((name, receipt) for name, receipt in store.receipts().items() if name.startswith("original-"))
    keys = [receipt["key"] for _, receipt in receipts if not receipt.get("removed") and not receipt["diverged"]]
    return [key for key in keys if store.has_outputs(key)]


def seconds_of_scores(store: Store) -> dict[str, float]:
    """Score -> median seconds on one original, beyond its training."""
    timed = seconds_of_proxies(store, inversion_on_file(store))
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
    proxies = {name: as_held(store.read_score(name), name)[0] for name in names}
    title = f"{store.manifest.data}, {found.standings.models} models, {suffix}"
    files = {
        f"reports/lorenz_{suffix}.png": lorenz_curves(oriented, found.gini, title),
        f"reports/fidelity_{suffix}.json": sealed(asdict(found)),
    }
    if proxies:
        spearman = {row.score: row.spearman.value for row in found.standings.rows}
        files[f"reports/proxies_{suffix}.png"] = proxies_beside(oriented[reference], proxies, spearman, title)
    for signals in found.signals:
        files[f"reports/loss_and_{signals.risk}.png"] = loss_and_success(signals, title)
    for path, content in files.items():
        store.folder.replace(path, content)
    return list(files)
