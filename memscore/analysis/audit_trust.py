"""Whether an audit can be trusted: checks of the model, of the shadow models' fit and of the list of members.

LiRA compares a model's confidences with those of shadow models that are trained alike. Where they are not alike, or the
list is not of the model's members, the attack fails, and an attack that fails looks like privacy. Each check here gives
a reason not to trust the audit, in one line with the numbers that it rests on; an audit without reasons is trusted.

Limits are where one more of the bank's own models would lie 99.9 % of the time (memscore/statistics/shadow_fit.py),
and never closer than what changes conclusions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from memscore.analysis.calibration import AuditedThreshold
from memscore.analysis.shadow_targets import ShadowTargets
from memscore.models.output_kinds import DESCRIPTIONS
from memscore.statistics.intervals import Interval
from memscore.statistics.shadow_fit import LEAST_MODELS, Limits, ShadowFit, compute_limits, fit_shadows
from memscore.store.manifest import Manifest
from memscore.units import format_count

ACCURACY_MARGIN = 0.1
"""Smallest difference from the bank's mean accuracy that counts as another."""
USUAL_ACCURACY_SD = 0.01
CHANCE_MARGIN = 0.05
"""Above the share of the largest class, within which a network has learned nothing."""
EXPLAINED_SHARE = 0.8
"""Share of the classes that another order must explain to be the reason for a low accuracy."""
LOST_SHARE = 0.25
"""Of the distance from one half of the bank's own AUC, from which on a lower AUC counts as another."""
SMALL_GROUP = 10
"""Members or others below which an AUC says little; no accuracies of so few are compared."""
MEAN_STD = tuple[tuple[float, ...], tuple[float, ...]]
CONSTANTS = ((0.0, 1.0), (0.5, 0.5), (0.0, 1 / 255))
"""Mean and std that are tried where a model does not fit: pixels in [0, 1], in [-1, 1], in 0 to 255."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class GroupAccuracy:
    """A model's accuracy on some examples beside that of the bank's models on theirs.

    Attributes:
        value: of the audited model; NaN over no examples.
        examples: their number.
        bank: median of the bank's models; NaN where they have none.
        limits: of one more model of the bank.
    """

    value: float
    examples: int
    bank: float
    limits: Limits

    @property
    def fits(self) -> bool:
        """Whether the accuracy is within the limits, as far as both are known and of more than a few examples."""
        return np.isnan(self.value) or self.examples < SMALL_GROUP or self.limits.contain(self.value)


@dataclass(frozen=True, kw_only=True, eq=False)
class Observations:
    """What is known of an audited model, before its audit is judged.

    Attributes:
        output_kind: a key of memscore.models.output_kinds.DESCRIPTIONS; empty for logits.
        predicted: class of every example of the bank, int64 [N].
        labels: int64 [N].
        accuracies: by group: members and others where they are known, else train; validation, test.
        fits: by split, of the model's confidences; None without examples or with too few shadow models.
        models: number of shadow models.
        suspicions: of the file of weights.
    """

    output_kind: str
    predicted: np.ndarray
    labels: np.ndarray
    accuracies: dict[str, GroupAccuracy]
    fits: dict[str, ShadowFit | None]
    models: int
    suspicions: tuple[str, ...] = ()


def compare_accuracies(
    groups: Mapping[str, np.ndarray], shadow_accuracies: Mapping[str, np.ndarray]
) -> dict[str, GroupAccuracy]:
    """Compare a model's accuracy with the bank's: whether it is right, by group, and the bank's accuracies [M]."""
    compared = {}
    for name, correct in groups.items():
        known = shadow_accuracies[name][~np.isnan(shadow_accuracies[name])]
        limits = compute_limits(known, ACCURACY_MARGIN, USUAL_ACCURACY_SD) if len(known) else Limits(lo=0.0, hi=1.0)
        limits = Limits(lo=max(limits.lo, 0.0), hi=min(limits.hi, 1.0))
        compared[name] = GroupAccuracy(
            value=float(correct.mean()) if len(correct) else float("nan"),
            examples=len(correct),
            bank=float(np.median(known)) if len(known) else float("nan"),
            limits=limits,
        )
    return compared


def find_model_reasons(seen: Observations, manifest: Manifest) -> Iterator[str]:
    """Yield reasons that lie in the model: its outputs, its accuracy, and its confidences among the shadow models'."""
    if seen.output_kind:
        yield f"{DESCRIPTIONS[seen.output_kind]}; the attacks need logits, so let it return what comes before that"
    yield from _find_accuracy_reasons(seen, manifest.n_classes)
    if seen.models < LEAST_MODELS:
        yield (
            f"{seen.models} shadow models are too few to tell whether the model fits them, which takes {LEAST_MODELS} "
            "or more; train more models"
        )
    elif not any(seen.fits.values()):
        yield "the bank has no validation or test examples, on which the model could be compared with its models"
    misfits = {split: fit for split, fit in seen.fits.items() if fit is not None and not fit.fits}
    if misfits:
        yield (
            "its confidence in examples that no shadow model was trained on does not lie among theirs: "
            f"{'; '.join(describe_misfit(split, fit) for split, fit in misfits.items())}"
        )


def describe_misfit(split: str, fit: ShadowFit) -> str:
    """Describe how a model's confidences differ from the shadow models' on a split, with the limits."""
    parts = []
    if not fit.median_limits.contain(fit.median):
        parts.append(f"median z {fit.median:.2f} (fits: {fit.median_limits.lo:.2f} to {fit.median_limits.hi:.2f})")
    if not fit.spread_limits.contain(fit.spread):
        parts.append(f"sd of z {fit.spread:.2f} (fits: {fit.spread_limits.lo:.2f} to {fit.spread_limits.hi:.2f})")
    return f"{' and '.join(parts)} on {format_count(fit.examples, f'{split} example')}"


def _find_accuracy_reasons(seen: Observations, n_classes: int) -> Iterator[str]:
    """Yield reasons that lie in accuracies: classes in another order, chance, or far from the bank's models."""
    # members and others are judged with the list that tells them apart (find_member_reasons)
    groups = {name: group for name, group in seen.accuracies.items() if name not in {"members", "others"}}
    wrong = {name: group for name, group in (groups or seen.accuracies).items() if not group.fits}
    if not wrong:
        return
    accuracies = describe_accuracies(wrong)
    order = find_class_order(seen.predicted, seen.labels, n_classes)
    accuracy = float((seen.predicted == seen.labels).mean())
    reordered = float((order[seen.predicted] == seen.labels).mean())
    largest = float(np.bincount(seen.labels, minlength=n_classes).max() / len(seen.labels))
    known = [group for group in seen.accuracies.values() if group.examples]
    least = sum(group.limits.lo * group.examples for group in known) / sum(group.examples for group in known)
    if accuracy < least <= reordered and explains_answers(order, seen.predicted, seen.labels):
        moved = [f"{output} is {label}" for output, label in enumerate(order.tolist()) if output != label]
        yield (
            f"its classes are in another order than the bank's ({', '.join(moved[:4])}{', ...' * (len(moved) > 4)}): "
            f"accuracy {accuracy:.3f}, in the bank's order {reordered:.3f}"
        )
    elif accuracy <= max(largest, 1 / n_classes) + CHANCE_MARGIN and not seen.output_kind:
        yield (
            f"it looks untrained or trained on other labels: its accuracy is {accuracy:.3f}, near chance "
            f"({max(largest, 1 / n_classes):.3f}); {accuracies}; check that these weights and images are the ones meant"
        )
    else:
        yield f"its accuracy is not that of the bank's models: {accuracies}"


def describe_accuracies(groups: Mapping[str, GroupAccuracy]) -> str:
    """Describe accuracies beside those of the bank's models and their limits."""
    return "; ".join(
        f"{name} {group.value:.3f}, the bank's models {group.bank:.3f} ({group.limits.lo:.3f} to {group.limits.hi:.3f})"
        for name, group in groups.items()
    )


def find_class_order(predicted: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Find the order of classes in which most predictions are right: the label that each output stands for, [K]."""
    counts = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(counts, (predicted, labels), 1)
    # of equally good orders the one that moves the fewest classes
    order: np.ndarray = linear_sum_assignment(-(counts + np.eye(n_classes) / (2 * n_classes)))[1]
    return order


def explains_answers(order: np.ndarray, predicted: np.ndarray, labels: np.ndarray) -> bool:
    """Return whether an order of classes explains a model's answers: most outputs are mostly of their own class.

    An untrained network answers with a few classes, and some order of classes suits its answers better than others.
    The order has the label that each output stands for, [K]; predicted and labels are int64 [N].
    """
    counts = np.zeros((len(order), len(order)), np.int64)
    np.add.at(counts, (predicted, labels), 1)
    # an output that is never given explains nothing, and one of a class without examples cannot be judged
    known = np.isin(order, labels)
    explained = (counts.argmax(1) == order) & (counts.sum(1) > 0)
    return bool(explained[known].mean() >= EXPLAINED_SHARE)


def find_member_reasons(
    member: np.ndarray,
    area: Interval,
    accuracies: Mapping[str, GroupAccuracy],
    targets: ShadowTargets,
    *,
    fits: bool,
) -> Iterator[str]:
    """Yield reasons that lie in the list of members, bool [n_train], given the AUC of LiRA online.

    `fits` is whether the model itself gives no reason: of one that does not fit a low AUC tells nothing of the list.
    """
    count, n = int(member.sum()), len(member)
    if count in {0, n}:
        yield (
            f"{'all' if count else 'none'} of the bank's {n} training examples are listed as members, so there is "
            "nobody to tell them from: AUC, TPR and epsilon compare members with non-members, both of them training "
            "examples of the bank; for a model that was trained on all of your images, use a bank whose training set "
            "also has others of the same kind"
        )
        return
    members, others = accuracies["members"], accuracies["others"]
    is_inverted = area.hi < 0.5
    if is_inverted or _is_clearly_less(members, others):
        yield (
            f"members do worse than others (accuracy {members.value:.3f} and {others.value:.3f}, AUC of LiRA "
            f"{format_interval(area)}): no training does that, so the list may be inverted, naming the non-members"
        )
        return
    wrong = {name: accuracies[name] for name in ("members", "others") if not accuracies[name].fits}
    if fits and wrong:
        yield (
            f"the accuracy on listed members and others is not that of the bank's models on theirs: "
            f"{describe_accuracies(wrong)}; the list is not of this model's members, or not of all"
        )
        return
    aucs = targets.aucs[~np.isnan(targets.aucs)]
    if not fits or not len(aucs) or np.isnan(area.value) or min(count, n - count) < SMALL_GROUP:
        return
    limits = compute_limits(aucs, LOST_SHARE * max(float(aucs.mean()) - 0.5, 0.0), targets.auc_se)
    # the error of this model's AUC counts too, where it has fewer members or others than the bank's models
    if area.value < limits.lo and area.hi < float(aucs.mean()):
        yield (
            f"the AUC of LiRA is {format_interval(area)}, and the bank's own models, attacked in the same way, have "
            f"{aucs.mean():.3f} ({limits.lo:.3f} or more): the list is not of this model's members (shifted, shuffled, "
            "incomplete, of another model), or the model was trained otherwise than they"
        )


def find_missing_members(thresholds: Sequence[AuditedThreshold]) -> Iterator[str]:
    """Yield a reason if listed non-members are flagged far more often than those of the bank's own models.

    A member that the list lacks counts as a non-member, and hides what the attacks find. The limit is three standard
    deviations of one model's rate above the expected one, and the whole interval must lie above it.
    """
    for each in thresholds:
        realised, expected = each.realised_fpr, each.expected
        limit = expected.fpr.value + 3 * expected.fpr_sd
        if realised is not None and (each.non_members or 0) >= SMALL_GROUP and realised.lo > limit:
            yield (
                f"{100 * realised.value:.1f} % of the {each.non_members} that are not listed as members are flagged at "
                f"LiRA > {each.threshold:.3g}, of the bank's own models {100 * expected.fpr.value:.1f} %: the list "
                "does not name all members, and those that it lacks count as non-members"
            )
            return


def _is_clearly_less(members: GroupAccuracy, others: GroupAccuracy) -> bool:
    """Whether members are less often right than others, by more than three standard errors of the difference."""
    if min(members.examples, others.examples) < SMALL_GROUP:
        return False
    variances = (g.value * (1 - g.value) / g.examples for g in (members, others))
    return others.value - members.value > max(3 * float(np.sqrt(sum(variances))), 1e-9)


def format_interval(interval: Interval) -> str:
    """Format a value and its 95 % interval."""
    return f"{interval.value:.3f} [{interval.lo:.3f}, {interval.hi:.3f}]"


def list_other_constants(manifest: Manifest, used: MEAN_STD) -> list[MEAN_STD]:
    """List normalization constants that models are often trained with, and the bank's, without those that were used."""
    channels = manifest.input_shape[0]
    usual = [((mean,) * channels, (std,) * channels) for mean, std in CONSTANTS]
    candidates = [(manifest.mean, manifest.std), *usual, *([IMAGENET] if channels == 3 else [])]
    return [each for each in candidates if not np.allclose(each, used, rtol=1e-3)]


def find_causes(
    seen: Observations,
    manifest: Manifest,
    used: MEAN_STD,
    held_out: Mapping[str, tuple[np.ndarray, np.ndarray]],
    predict: Callable[[MEAN_STD, np.ndarray], dict[str, np.ndarray]],
) -> Iterator[str]:
    """Yield likely causes of a misfit: normalization constants, weights, or else the recipe.

    `predict` evaluates the model on rows under other constants: logit_confidence and correct, [n].
    """
    yield from seen.suspicions
    rows = np.concatenate([rows for rows, _ in held_out.values()]) if held_out else np.empty(0, np.int64)
    shadows = np.concatenate([phi for _, phi in held_out.values()], axis=1) if held_out else np.empty((0, 0))
    now = predict(used, rows)["correct"].mean() if len(rows) else 0.0
    for constants in list_other_constants(manifest, used) if len(rows) else []:
        other = predict(constants, rows)
        fit, accuracy = fit_shadows(other["logit_confidence"], shadows), float(other["correct"].mean())
        if fit is not None and fit.fits and accuracy >= now:
            yield (
                f"normalization: with {format_constants(constants)} the model fits, with accuracy {accuracy:.3f} on "
                f"validation and test in place of {now:.3f}"
            )
            return
    if not np.allclose((manifest.mean, manifest.std), used, rtol=1e-3):
        yield (
            f"normalization: the model is evaluated with {format_constants(used)}, the bank's models with "
            f"{format_constants((manifest.mean, manifest.std))}"
        )
    elif any(fit is not None and fit.spread < fit.spread_limits.lo for fit in seen.fits.values()):
        yield (
            "more training examples than the bank's models had, some of the validation or test examples among them, or "
            "an average of several models"
        )
    elif not seen.output_kind:
        yield (
            "another architecture, recipe (epochs, learning rate, schedule, optimizer, weight decay, augmentation), "
            "normalization, number of training examples or temperature than the bank's models"
        )


def format_constants(constants: MEAN_STD) -> str:
    """Format normalization constants as options of the command."""
    mean, std = (" ".join(f"{value:.4g}" for value in values) for values in constants)
    return f"--mean {mean} --std {std}"


def conclude(
    reasons: Sequence[str], area: Interval | None, counts: tuple[int, int], epsilon: float, bank_auc: float
) -> str:
    """Conclude an audit in one line, which never says that a model is private.

    Takes the reasons not to trust it, the AUC of LiRA online if members are known, the numbers of members and others
    with evidence, the bound on epsilon, and the mean AUC of the bank's own models.
    """
    if reasons:
        more = f" (and {len(reasons) - 1} more above)" if len(reasons) > 1 else ""
        return f"not trusted: {reasons[0]}{more}"
    if area is None:
        return (
            "the model fits the shadow models; without --members nothing tells how often the flags are right, so no "
            "conclusion about leakage"
        )
    if np.isnan(area.value):
        return "no example has shadow models with it and without it, so there is nothing to conclude from"
    beside = f" (the bank's own models {bank_auc:.3f})" if not np.isnan(bank_auc) else ""
    evidence = [f"AUC {format_interval(area)}{beside}"]
    if epsilon > 0:
        evidence.append(f"epsilon at least {epsilon:.2f}")
    if area.lo > 0.5 or epsilon > 0:
        return f"{', '.join(evidence)}: evidence of leakage, members can be told from others better than by chance"
    least = compute_detectable_auc(*counts)
    return (
        f"{evidence[0]}: no evidence of leakage at this power; with {format_count(counts[0], 'member')} and "
        f"{format_count(counts[1], 'other')} an AUC "
        f"of {least:.3f} or more would have been detected 4 times of 5"
    )


def compute_detectable_auc(n_members: int, n_others: int) -> float:
    """Compute the AUC that a two-sided test of level .05 detects with probability .8, by the null variance of U.

    1/2 + (1.96 + .84) sqrt((m + n + 1) / (12 m n)), at most 1; NaN without members or others
    """
    if not n_members or not n_others:
        return float("nan")
    return min(1.0, 0.5 + 2.8 * float(np.sqrt((n_members + n_others + 1) / (12 * n_members * n_others))))
