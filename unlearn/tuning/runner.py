"""Sweeps: every contender tuned on some originals and one forget set, and judged on others.

Level by level: a level is one search for all contenders side by side, since step i of a sequence can be tuned only when
step i - 1 is chosen (RUM tunes each step against the oracle of what is forgotten so far). What several contenders have
in common is hunted once. Nothing here knows how a search is done or where trials run; both are handed in.

What a sweep refuses, before a model is trained for it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from cluster.pool import Pool
from memscore.pipeline.jobs import OriginalJob, compute_job_key
from unlearn.algorithms import get_algorithm
from unlearn.forget_sets import ForgetSet
from unlearn.meta.partition import Parts, align_scores, merge_parts
from unlearn.oracles import build_reference_jobs
from unlearn.trials.config import ORACLE, Params, Row, Step, TrialConfig, check_applicable, trial_key
from unlearn.trials.setup import (
    ShowProgress,
    UnlearningContext,
    no_progress,
    read_embeddings,
    require_reference_models,
    run_trials,
)
from unlearn.tuning.methods import ORIGINAL, Method
from unlearn.tuning.search import (
    OBJECTIVE,
    SEARCH_MEASURES,
    ConfigResult,
    HyperparameterSearch,
    SearchBackend,
    find_boundary_params,
    run_searches,
    select_config,
)
from unlearn.tuning.state import MethodProgress, SweepResult, SweepSettings, explain_no_choice, identity_columns
from unlearn.tuning.tuning_set import describe_outdated_scores, describe_score_difference, select_tuning_set


def check_methods(asked: UnlearningContext, contenders: Sequence[Method]) -> None:
    """Stop where an algorithm cannot do with this bank.

    Args:
        asked: the store and its data.
        contenders: what is compared.

    Raises:
        ValueError: an algorithm that cannot change the bank's networks, or one that reads validation examples, or the
            choice itself, where the bank holds out none.
    """
    known = {name: contender for contender in contenders for name in contender.plan}
    for name, contender in known.items():
        check_applicable(asked.store, name, dict(contender.params(name)))
        if get_algorithm(name).reads_validation and not len(asked.trial_data.validation):
            raise ValueError(f"{name} reads validation examples, and the bank holds out none; use --validation 0.1")
    if not len(asked.trial_data.selection):
        raise ValueError(
            f"parameters are chosen on validation examples, and {asked.store.folder.display_name} holds out none; use "
            "a bank "
            "made with --validation 0.1"
        )


def check_rounds(asked: UnlearningContext, contender: Method, forget: ForgetSet) -> None:
    """Stop where RSU would have an empty round, or could not rank.

    Args:
        asked: the data and its scores.
        contender: in rounds or not.
        forget: what it forgets.

    Raises:
        ValueError: more rounds than examples, or than classes where those are admitted whole; a risk that is no score,
            or undefined for an example to forget.
    """
    rounds = contender.rounds_over(
        forget.rows, lambda name: align_scores(name, asked.scores.score, asked.splits.train.ids)
    )
    if rounds is None:
        return
    rows = np.array(forget.rows)
    there = len(rows) if rounds.unit == "example" else len(np.unique(asked.trial_data.labels[rows]))
    if rounds.n > there:
        one, many = ("example", "examples") if rounds.unit == "example" else ("class", "classes")
        what = one if there == 1 else many
        raise ValueError(
            f"--rounds {rounds.n}: {forget.name} has {there} {what}, and each round of rsu admits at least one; use "
            f"--rounds {there} or fewer"
        )


def check_matched_classes(asked: UnlearningContext, terms: SweepSettings, tuned_on: ForgetSet) -> None:
    """Stop where the blind selection has nothing to compare the forget set with.

    Args:
        asked: the data.
        terms: which selections are made.
        tuned_on: the forget set that parameters are chosen on.

    Raises:
        ValueError: a class of it has no example among those that selection reads.
    """
    if "blind" not in terms.select:
        return
    bench = asked.trial_data
    lacking = np.setdiff1d(bench.labels[np.array(tuned_on.rows)], bench.labels_true[bench.selection])
    if len(lacking):
        raise ValueError(
            f"the blind selection compares what is forgotten with unseen examples of its classes, and class "
            f"{', '.join(map(str, lacking.tolist()))} of {tuned_on.name} has none among the {len(bench.selection)} "
            "validation examples that selection reads; use --select oracle, or a bank with a larger --validation"
        )


class Sweep:
    """One sweep over a request's store.

    Args:
        asked: the request; its forget set is the one that is judged on.
        contenders: what is compared.
        terms: how.
        device: "cpu" or "cuda".
        phase: given originals, oracles, attempts and trials in turn, hands out who is told of each.
    """

    def __init__(
        self,
        asked: UnlearningContext,
        contenders: Sequence[Method],
        terms: SweepSettings,
        device: str,
        phase: ShowProgress = no_progress,
    ) -> None:
        self.asked, self.contenders, self.terms = asked, contenders, terms
        self.device, self.phase = device, phase
        self.store = asked.store
        self.tune_on = range(terms.tune)
        twice = 2 if any(contender.draws_labels for contender in contenders) else 1
        self.judge_on = range(terms.tune, terms.tune + terms.seeds * twice)
        self.failed: list[str] = []
        self.scored = cache(lambda name: align_scores(name, asked.scores.score, asked.splits.train.ids))

    def check(self) -> None:
        """Refuse, before anything is trained, words that cannot hold; embeddings are taken to be there.

        Raises:
            ValueError: as of sweep_checks; no second forget set, a score that the store lacks or that is undefined for
                an example to forget, more parts than examples.
        """
        check_methods(self.asked, self.contenders)
        nothing_yet = np.random.default_rng(0).normal(size=(len(self.asked.splits.train), 2))
        judged_on = self.asked.forget_set(lambda: nothing_yet)
        tuned_on = select_tuning_set(self.asked, self.terms.tune_forget, judged_on, lambda: nothing_yet)
        for forget in (judged_on, tuned_on):
            for contender in self.contenders:
                check_rounds(self.asked, contender, forget)
                cut = contender.cut if contender.cut.kind != "centroid" else replace(contender.cut, rule="equal")
                cut.split(forget.rows, self.scored, lambda: nothing_yet, self.terms.seed)
        if not tuned_on.name.startswith("entanglement"):
            check_matched_classes(self.asked, self.terms, tuned_on)

    def run(self, pool: Pool, search: SearchBackend) -> SweepResult:
        """All of it.

        Args:
            pool: where models are trained and trials judged.
            search: what looks for parameters.

        Returns:
            What came of it.

        Raises:
            RuntimeError: a model that trials need could not be trained.
            ValueError: what could not be told before there were originals: parts by the distance to a centroid that are
                none, classes of an entangled forget set that have no validation example.
        """
        every = [*self.tune_on, *self.judge_on]
        require_reference_models(
            self.asked, build_reference_jobs(self.store, [], every, self.device), pool, self.phase, "originals"
        )
        judged_on = self.asked.forget_set(lambda: self._embeddings(0))
        tuned_on = select_tuning_set(self.asked, self.terms.tune_forget, judged_on, lambda: self._embeddings(0))
        check_matched_classes(self.asked, self.terms, tuned_on)
        self._train_oracles(tuned_on, judged_on, pool)
        selections = self.terms.select
        paths = [MethodProgress(contender=one, select=select) for one in self.contenders for select in selections]
        for level in range(max(contender.levels for contender in self.contenders)):
            if going := [path for path in paths if path.contender.levels > level and not path.over]:
                self._climb(going, tuned_on, search)
        judged, failed = self._judge(paths, judged_on, pool)
        kinds = self.asked.options.forget, tuned_on, judged_on
        unlike = (
            describe_score_difference(*kinds, self.scored),
            describe_outdated_scores(self.asked.planted, self.contenders),
        )
        return SweepResult(
            paths=paths,
            tried=self._tried(paths),
            judged=judged,
            failed=[*self.failed, *failed],
            tuned_on=tuned_on,
            judged_on=judged_on,
            notes=tuple(filter(None, (*self.asked.notes, *unlike))),
        )

    def _embeddings(self, index: int) -> np.ndarray:
        """What the last layer of an original reads of each training example."""
        key = compute_job_key(self.store, OriginalJob(store=self.store.url, index=index))
        return read_embeddings(self.store, key)

    def _parts(self, contender: Method, forget: ForgetSet, index: int) -> Parts:
        """The parts of a forget set, in their order."""
        cut = contender.cut
        return cut.split(forget.rows, self.scored, lambda: self._embeddings(index), self.terms.seed, index)

    def _train_oracles(self, tuned_on: ForgetSet, judged_on: ForgetSet, pool: Pool) -> None:
        """Every oracle that hunts and judged trials are measured against, in one run of the pool."""
        jobs: dict[OriginalJob, None] = {}
        both = (tuned_on, self.tune_on, True), (judged_on, self.judge_on, False)  # which may be one set
        for forget, indices, tuning in both:
            for index in indices:
                sets = [forget.rows]
                for contender in self.contenders:
                    parts = self._parts(contender, forget, index)
                    stepwise = contender.tuning == "steps" if tuning else self.terms.dynamics
                    if stepwise:
                        sets += [merge_parts(parts[:number]) for number in range(1, len(parts))]
                jobs |= dict.fromkeys(build_reference_jobs(self.store, sets, [index], self.device))
        require_reference_models(self.asked, list(jobs), pool, self.phase, "oracles")

    def _trial(self, contender: Method, steps: Sequence[tuple[str, Params]], parts: Parts, **more: Any) -> TrialConfig:
        """The trial that ends a sequence of steps over the first parts."""
        rows = parts[: len(steps)]
        before = tuple(
            Step(algorithm=name, params=params, rows=part)
            for (name, params), part in zip(steps[:-1], rows[:-1], strict=True)
        )
        return TrialConfig(
            store=self.store.url,
            algorithm=steps[-1][0],
            params=steps[-1][1],
            forget=merge_parts(rows),
            part=rows[-1] if before else (),
            before=before,
            rounds=contender.rounds_over(rows[-1], self.scored),
            seed=self.terms.seed,
            device=self.device,
            variant=contender.variant,
            **more,
        )

    def _hunts(self, path: MethodProgress, forget: ForgetSet) -> Iterator[tuple[str, HyperparameterSearch]]:
        """The searches at the next level of a path, by the algorithm that each is for."""
        contender = path.contender
        guide: Any = path.select if self.terms.sampler == "tpe" else ""
        cut = [self._parts(contender, forget, index) for index in self.tune_on]
        common: dict[str, Any] = {
            "forget_set": forget.name,
            "by_class": forget.by_class,
            "measures": SEARCH_MEASURES,
            "core": False,
        }
        level = len(path.steps)
        if contender.tuning != "steps":
            names = [contender.candidates(number)[0] for number in range(contender.cut.k)]
            steps = [(name, contender.params(name)) for name in names]
            trials = [
                self._trial(contender, steps, parts, index=i, **common)
                for i, parts in zip(self.tune_on, cut, strict=True)
            ]
            yield (
                contender.name,
                HyperparameterSearch(
                    trials=tuple(trials), joint=len(names) > 1, guide=guide, tuned=contender.tuning != "defaults"
                ),
            )
            return
        for name in contender.candidates(level):
            steps = [*path.steps, (name, contender.params(name))]
            trials = [
                self._trial(contender, steps, parts, index=i, keep_before=level > 0, **common)
                for i, parts in zip(self.tune_on, cut, strict=True)
            ]
            yield name, HyperparameterSearch(trials=tuple(trials), guide=guide)

    def _climb(self, paths: Sequence[MethodProgress], forget: ForgetSet, search: SearchBackend) -> None:
        """Search at the next level of these paths, and choose."""
        wanted = [
            (path, name, hunt, hunt.name(self.store)) for path in paths for name, hunt in self._hunts(path, forget)
        ]
        terms, hunts = self.terms, {key: hunt for _, _, hunt, key in wanted}
        with self.phase(f"attempts at step {len(paths[0].steps) + 1}") as progress:
            common = self.store, hunts, terms.budget, search, self.asked.trial_data
            found, failed = run_searches(*common, terms.sampler, terms.seed, progress)
        self.failed += failed
        for path in paths:
            best: tuple[ConfigResult, HyperparameterSearch, list[ConfigResult]] | None = None
            for name, hunt, key in ((name, hunt, key) for owner, name, hunt, key in wanted if owner is path):
                path.hunts.append((len(path.steps), name, found[key]))
                one, column = select_config(found[key], path.select), OBJECTIVE[path.select]
                if one and (best is None or one[column] > best[0][column]):
                    best = one, hunt, found[key]
            if best is None:
                path.over = explain_no_choice(
                    len(path.steps) + 1, [found[key] for owner, _, _, key in wanted if owner is path]
                )
            else:
                self._take(path, *best)

    def _take(
        self, path: MethodProgress, one: ConfigResult, hunt: HyperparameterSearch, among: Sequence[ConfigResult]
    ) -> None:
        """Go a level further with this attempt; where all are alike, that it lies at an end says nothing."""
        alike = len(among) > 1 and len({other[OBJECTIVE[path.select]] for other in among}) == 1
        trial = hunt.filled(one["values"])[0]
        chosen_steps = trial.steps if path.contender.tuning != "steps" else trial.steps[-1:]
        begun = len(path.steps)
        path.steps += [(step.algorithm, step.params) for step in chosen_steps]
        path.found.append(one)
        for value in () if alike else find_boundary_params(hunt, one["values"]):
            number, _, own = value.rpartition(".")
            at = int(number) if number else begun + 1
            where = f"{at}." * (path.contender.cut.k > 1)
            path.boundary.append(f"{where}{path.steps[at - 1][0]}.{own}")

    def _tried(self, paths: Sequence[MethodProgress]) -> list[Row]:
        """A row for each original of each attempt that a contender chose among."""
        rows: dict[tuple[Any, ...], Row] = {}
        read = cache(self._row)  # contenders share attempts
        for path in paths:
            for level, name, attempts in path.hunts:
                for number, one in enumerate(attempts):
                    mine = level < len(path.found) and one is path.found[level]
                    for trial in one["trials"]:
                        place = (path.contender.name, path.contender.variant, level, name, trial)
                        if place not in rows:
                            rows[place] = read(trial) | identity_columns(
                                path.contender, len(path.steps), "", level + 1, number
                            )
                        row = rows[place]
                        row["select"] = " ".join([*row["select"].split(), path.select]) if mine else row["select"]
        return list(rows.values())

    def _row(self, trial: str) -> Row:
        """The row of a tuning trial, which its attempt says is on file."""
        row = self.store.read_trial(trial)
        if row is None:
            raise FileNotFoundError(f"trial {trial} was removed while the sweep ran; the same command makes it again")
        return row

    def _judge(self, paths: Sequence[MethodProgress], forget: ForgetSet, pool: Pool) -> tuple[list[Row], list[str]]:
        """Run what was chosen on originals and a forget set that had no part in the choice."""
        common: dict[str, Any] = {
            "forget_set": forget.name,
            "by_class": forget.by_class,
            "measures": tuple(sorted(self.terms.measures)),
        }
        planned: list[tuple[TrialConfig, Row]] = []
        for index in self.judge_on:
            for name in (ORACLE, ORIGINAL):
                bare = Method(plan=(name,), variant="")
                trial = self._trial(bare, [(name, ())], (forget.rows,), index=index, **common)
                planned.append((trial, identity_columns(bare, 0, "", 0, 0)))
        for path in (one for one in paths if not one.over):
            last = len(self.judge_on) if path.contender.draws_labels else self.terms.seeds
            for index in self.judge_on[:last]:
                parts = self._parts(path.contender, forget, index)
                whole = self._trial(path.contender, path.steps, parts, index=index, keep=self.terms.dynamics, **common)
                first = 1 if self.terms.dynamics else len(path.steps)
                for number in range(first, len(path.steps) + 1):
                    mine = identity_columns(path.contender, len(path.steps), path.select, number, 0)
                    planned.append((whole.until(number), mine))
        trials = list(dict.fromkeys(trial for trial, _ in planned))
        with self.phase("judged trials") as progress:
            rows, failed = run_trials(trials, self.asked.trial_data, pool, progress)
        by_name = {row["trial"]: row for row in rows}
        named = [(by_name.get(trial_key(self.store, trial)), whose) for trial, whose in planned]
        return [row | whose for row, whose in named if row], failed
