"""Configuration of an experiment as a user writes it. Imports no torch, so that --help answers at once."""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import tyro

from memscore.cli.options import Maybe, Several
from memscore.user_functions import hash_user_sources
from unlearn.trials.default_scores import DEFAULT_SCORES
from unlearn.tuning.config import SELECTIONS, Selection, SweepConfig

PROXIES = ("events_confidence", "events_accuracy", "holdout")
"""SCALE's best three, which it refines by: confidence, binary accuracy, holdout retraining."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Values of the options that a user may leave out, each experiment's own.

    Attributes:
        size: number of examples to forget; 0 if the experiment decides it.
        algorithms: the algorithms that take part.
        budget: configurations evaluated at each step of a plan, in each tuning.
        tune_seeds: number of originals of each tuning.
        seeds: number of originals that methods are judged on, of all tunings together.
        tunings: how often all parameters are chosen anew.
    """

    size: int
    algorithms: tuple[str, ...]
    budget: int
    tune_seeds: int
    seeds: int
    tunings: int = 1


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Configure an experiment.

    Attributes:
        name: memorization, entanglement, rum, sequence, proxies, five-steps, rsu or difficulty; `unlearn list
            experiments` says what each asks.
        store: path or URL of a bank of `python -m memscore.estimate`.
        preset: small, for two CPU cores, or paper, for a GPU, with the papers' epochs and batches; sets the options
            left out below.
        score: score by which sets are selected and refined (default: memorization_k0.700, as in RUM; if it is missing
            memorization_k0.500, else the only memorization_k*).
        proxies: scores used in place of it, where an experiment compares them.
        size: number of examples to forget.
        algorithms: the algorithms that take part, by name (`unlearn list algorithms` lists all) or module:function.
        tunings: how often all parameters are chosen anew, with other draws and originals and another draw of the
            forget set, each judged on originals of its own; verdicts are over tunings, and of one there is none.
        budget: configurations evaluated at each step of a plan, in each tuning.
        tune_seeds: number of originals of each tuning.
        seeds: number of originals that methods are judged on, of all tunings together; twice as many for algorithms
            that draw labels.
        sampler: refine, random, grid or tpe.
        select: which selection: oracle, blind (oracle-free), or both.
        steps: scaled: epochs and batches take as many steps as in the paper's setting, for these data; paper: the
            paper's numbers as they are (default: scaled for --preset small, paper for --preset paper).
        space: the ranges that are searched: wide, or the papers'.
        search: parameters that are searched besides, epochs or batch, as finetune.epochs: half to three times the
            epochs, a quarter to four times the batch.
        tune_forget: forget set for tuning (default: another of the same kind; same: the judged one).
        seed: of all random draws.
        data: where the bank's data are now, by name or path, or module:function (default: where they were read).
        folder: folder of the data set.
        other: a second bank with augmentation, for proxies.
        rates: of difficulty: chosen, the smallest at which most decisions flip, on other examples and another original;
            paper, INST's appendix B (default: chosen for --preset small, paper for --preset paper).
        risk: score by which rsu ranks: attack_success, soft_attack_success, ... (default: the loss of theta_o).
    """

    name: tyro.conf.Positional[str]
    store: tyro.conf.Positional[str]
    preset: Literal["small", "paper"] = "small"
    score: Annotated[str, tyro.conf.arg(help_behavior_hint="")] = ""
    proxies: Several = PROXIES
    size: Maybe[int] = None
    algorithms: Several = ()
    tunings: Maybe[int] = None
    budget: Maybe[int] = None
    tune_seeds: Maybe[int] = None
    seeds: Maybe[int] = None
    sampler: Literal["refine", "random", "grid", "tpe"] = "refine"
    select: Literal["both", "oracle", "blind"] = "both"
    steps: Annotated[Maybe[Literal["scaled", "paper"]], tyro.conf.arg(help_behavior_hint="")] = None
    space: Literal["wide", "paper"] = "wide"
    search: Several = ()
    tune_forget: Annotated[str, tyro.conf.arg(help_behavior_hint="")] = ""
    seed: int = 0
    data: Maybe[str] = None
    folder: Maybe[str] = None
    other: Annotated[str, tyro.conf.arg(help_behavior_hint="")] = ""
    rates: Annotated[Maybe[Literal["chosen", "paper"]], tyro.conf.arg(help_behavior_hint="")] = None
    risk: Maybe[str] = None

    def resolve(self, preset: Preset) -> "ExperimentConfig":
        """Fill in what was left out; a score that is left out is the last of DEFAULT_SCORES until a store is open."""
        left_out = {name: value for name, value in asdict(preset).items() if getattr(self, name) in {None, ()}}
        steps = self.steps or ("paper" if self.preset == "paper" else "scaled")
        return replace(self, score=self.score or DEFAULT_SCORES[-1], steps=steps, **left_out)

    @property
    def identity(self) -> dict[str, Any]:
        """All options that decide the results, once resolved: the stored record, which names the folder."""
        # The keys, and what is nested under "scale", are those of records that exist: another key would rename folders.
        # The store's address is left out because it may change.
        record = {
            "store": "",
            "score": self.score,
            "proxies": self.proxies,
            "scale": {
                "size": self.size,
                "algorithms": self.algorithms,
                "budget": self.budget,
                "tune_seeds": self.tune_seeds,
                "seeds": self.seeds,
                "tunings": self.tunings,
            },
            "sampler": self.sampler,
            "select": self.select,
            "steps": self.steps,
            "space": self.space,
            "seed": self.seed,
            "data": self.data,
            "folder": self.folder,
            "other": self.other,
        }
        # Options that were added later: without them, the names of folders stay as they were.
        later = {
            "tune_forget": self.tune_forget,
            "risk": self.risk,
            "search": self.search,
            "rates": self.rates,
            "sources": hash_user_sources(self.algorithms),
        }
        return record | {name: value for name, value in later.items() if value}

    @property
    def selection(self) -> Selection:
        """Selection that verdicts rest on: the oracle's, unless only the oracle-free one was requested."""
        return "blind" if self.select == "blind" else "oracle"

    @property
    def selections(self) -> tuple[Selection, ...]:
        """The selection rules that are compared."""
        return SELECTIONS if self.select == "both" else (self.select,)

    def make_sweep_config(self, forget: str, **changes: Any) -> SweepConfig:
        """Configure a sweep on a forget set; the options are resolved."""
        options: dict[str, Any] = {
            "store": self.store,
            "size": self.size,
            "algorithms": self.algorithms,
            "variants": ("vanilla",),
            "tunings": self.tunings,
            "budget": self.budget,
            "tune_seeds": self.tune_seeds,
            "seeds": self.seeds,
            "sampler": self.sampler,
            "select": self.select,
            "tune_forget": self.tune_forget,
            "steps": self.steps,
            "space": self.space,
            "search": self.search,
            "seed": self.seed,
            "data": self.data,
            "folder": self.folder,
        }
        return SweepConfig(forget=forget, **options | changes)
