"""Write the tables of docs/reference from the tables in the code: `make reference`.

A page keeps its own prose. Between `<!-- generated: NAME -->` and `<!-- end of NAME -->` stands what TABLES[NAME]
gives; tests/test_reference.py compares.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np

from memscore.estimators.cscore import CSCORE
from memscore.estimators.memorization_blend import BLEND, estimate_blend
from memscore.estimators.memorization_stacked import STACKED
from memscore.estimators.registry import STATISTICS
from memscore.estimators.statistic import compute_table
from memscore.models.architectures import ARCHITECTURES
from memscore.pipeline.attack_decisions import name_decision_score
from memscore.pipeline.attacks import ATTACKS
from memscore.pipeline.config import ARCHITECTURE_FOR, PRESETS
from memscore.proxies.registry import PROXIES
from memscore.score_registry import EVENT_DIRECTIONS, SCORES, ScoreInfo
from memscore.store.file_kinds import FILE_KINDS
from memscore.training.recipes import RECIPES, Recipe, get_default_recipe_name
from unlearn.algorithms import ALGORITHMS, Algorithm
from unlearn.forget_sets import FORGET_SETS
from unlearn.measures import MEASURES
from unlearn.optimization.steps import get_paper_values
from unlearn.search_space import NOT_SEARCHED, Choice, Domain, LogUniform, narrow_to_paper

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"
REGION = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end of \2 -->)", re.DOTALL)
NEEDS = {"outputs": "outputs", "weights": "weights", "population": "many models"}
CSCORE_SOURCE = "Jiang et al. 2021: mean over the keep fractions of the C-score at each"
"""Of the C-score of a bank with several keep fractions; the statistic's own source is that at one fraction."""
BEST = {"max": "higher", "min": "lower", "oracle": "the oracle's", "none": ""}
"""What a user reads for Column.best."""


def format_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Format a Markdown table; a bar within a cell would end it."""
    lines = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(cells)} |".replace("  ", " ") for cells in (header, ["---"] * len(header), *lines)]


def quote(value: object) -> str:
    """Format a value as code, as a user types it; a tuple's values with commas."""
    values = value if isinstance(value, tuple) else (value,)
    text = ",".join(str(each).lower() if isinstance(each, bool) else str(each) for each in values)
    return f"`{text}`" if text else ""


def read_attributes(config: Any) -> dict[str, str]:
    """Read what the docstrings of a dataclass and its bases say of each field."""
    texts: dict[str, str] = {}
    for cls in reversed(inspect.getmro(config)):
        # inspect.getdoc would give a class without a docstring its base's, and dataclass writes a signature there
        _, _, listed = (inspect.cleandoc(cls.__doc__ or "")).partition("Attributes:\n")
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", listed, re.MULTILINE):
            texts[name] = " ".join(text.split()).removesuffix(".")
    return texts


def format_domain(domain: Domain | None) -> str:
    """Format the search space of one parameter; empty if it is not searched."""
    if domain is None:
        return ""
    if isinstance(domain, Choice):
        return ", ".join(str(value) for value in domain.values)
    return f"{domain.low:g} to {domain.high:g}" + ", logarithmic" * isinstance(domain, LogUniform)


def format_paper_domain(domain: Domain | None) -> str:
    """Format the range that the papers searched; "not searched" where none did."""
    if domain is None or domain.paper is None:
        return format_domain(domain)
    return "not searched" if domain.paper == NOT_SEARCHED else format_domain(narrow_to_paper(domain))


def list_algorithms() -> list[str]:
    """List every algorithm: what it does and where it comes from."""
    rows = [(f"[`{name}`](#{name})", entry.summary, entry.paper) for name, entry in ALGORITHMS.items()]
    return format_table(("algorithm", "what it does", "from"), rows)


def describe_conditions(entry: Algorithm) -> list[str]:
    """Describe what a user must know before choosing an algorithm."""
    conditions = {
        "made to forget whole classes; other forget sets get a remark": entry.granularity == "class",
        "reads validation examples": entry.reads_validation,
        "draws labels, so sweeps judge it on twice as many originals": entry.random_labels,
        "checks first that the network is suitable": entry.check_fit is not None,
    }
    return [text for text, holds in conditions.items() if holds]


def describe_algorithms() -> list[str]:
    """Describe each algorithm's parameters: default, search space with its source, meaning."""
    lines = []
    for name, entry in ALGORITHMS.items():
        config: Any = entry.config
        path = Path(inspect.getfile(entry.fn)).relative_to(ROOT)
        conditions = "".join(f"; {text}" for text in describe_conditions(entry))
        lines += [f"### {name}", "", f"[{path.name}](../../{path}){conditions}.", ""]
        meanings, space = read_attributes(config), getattr(config, "SPACE", {})
        rows = []
        papers = get_paper_values(config)
        for field in fields(config):
            default = "the bank's" if field.default is MISSING or field.name == "architecture" else quote(field.default)
            if field.name in papers:
                default = f"by the data; paper: {quote(papers[field.name])}"
            elif field.default is None:
                default = "by the data"
            domain = space.get(field.name)
            source = domain.source if domain else ""
            ranges = format_domain(domain), format_paper_domain(domain)
            rows.append((quote(field.name), default, *ranges, source, meanings.get(field.name, "")))
        if rows:
            header = ("parameter", "default", "wide", "paper", "why these ranges", "meaning")
            lines += [*format_table(header, rows), ""]
        else:
            lines += ["It has no parameters.", ""]
    return lines[:-1]


def list_measures() -> list[str]:
    """List every measure: its inputs, whether it is core, what it measures, where it comes from."""
    rows = [
        (quote(name), NEEDS[entry.needs], "yes" if entry.core else "", entry.summary, entry.paper)
        for name, entry in MEASURES.items()
    ]
    return format_table(("measure", "of", "core", "what", "from"), rows)


def list_measure_columns() -> list[str]:
    """List the columns of every measure: unit, what is better, the ideal value."""
    rows = [
        (
            quote(column),
            quote(name),
            info.description,
            info.unit,
            BEST[info.best],
            info.ideal,
            "_validation, _test" if entry.splits else "",
        )
        for name, entry in MEASURES.items()
        for column, info in entry.columns.items()
    ]
    header = ("result column", "measure", "meaning", "unit", "better", "ideal", "endings")
    return format_table(header, rows)


def list_statistic_columns() -> list[str]:
    """List the columns that stand beside each statistic, by computing it for a bank of random models."""
    rng = np.random.default_rng(0)
    member, signal = rng.random((8, 5)) < 0.5, rng.normal(size=(8, 5))
    rows = []
    for stem, entry in STATISTICS.items():
        table = compute_table(entry, signal > 0 if entry.signal == "correct" else signal, member)
        rows.append((quote(f"{stem}_k0.500"), ", ".join(f"`_{column}`" for column in table if column != "value")))
    pairs = [(np.arange(4), np.arange(4, 8))]
    table, _ = estimate_blend(signal > 0, signal, member, pairs)
    rows.insert(0, (quote(f"{BLEND}_k0.500"), ", ".join(f"`_{column}`" for column in table if column != "value")))
    return format_table(("statistic", "columns beside it"), rows)


def list_forget_sets() -> list[str]:
    """List the values of --forget."""
    rows = [
        (", ".join(map(quote, written.split())), meaning)
        for entry in FORGET_SETS.values()
        for written, meaning in entry.meanings.items()
    ]
    return format_table(("value", "forget set"), rows)


def list_scores() -> list[str]:
    """List the scores of every example: definition with its source, direction, unit, and how a user gets it."""
    rows: list[tuple[str, ScoreInfo, str]] = []
    # an imported bank has only the columns that were given
    rows += [(f"{BLEND}_k0.500", SCORES[BLEND], "always, from `correct` and `gap`")]
    rows += [(f"{STACKED}_k0.500", SCORES[STACKED], "`--stacked`")]
    rows += [(f"{stem}_k0.500", entry.info, f"always, from `{entry.signal}`") for stem, entry in STATISTICS.items()]
    rows += [("cscore", CSCORE.info._replace(source=CSCORE_SOURCE), "two keep fractions or more")]
    for name, attack in ATTACKS.items():
        scores = (*attack.scores, attack.success, attack.soft_success, name_decision_score(attack.scores[0]))
        option = f"always, from `{attack.signal}`" if name == "lira" else f"`--attacks {name}`"
        rows += [(f"{score}_k0.500", SCORES[score], option) for score in scores]
    rows += [(f"events_{event}", SCORES[event], "`--originals` of 1 or more") for event in EVENT_DIRECTIONS]
    rows += [("final_loss", SCORES["final_loss"], "`--originals` of 1 or more")]
    rows += [(score, SCORES[score], f"`--proxies {name}`") for name, proxy in PROXIES.items() for score in proxy.scores]
    signs = {1: "+", -1: "-", 0: ""}
    table = [(quote(name), info.source, signs[info.direction], info.unit, option) for name, info, option in rows]
    return format_table(("column", "definition and source", "up", "unit", "computed with"), table)


def list_file_kinds() -> list[str]:
    """List every kind of file of a store."""
    rows = [(quote(kind.pattern), kind.format.name, kind.content.removesuffix(".")) for kind in FILE_KINDS]
    return format_table(("path", "format", "content"), rows)


def list_presets() -> list[str]:
    """List the presets of subset designs."""
    rows = []
    for name, (arms, count) in PRESETS.items():
        keeps = f"{arms[0].keep} ... {arms[-1].keep}" if len(arms) > 1 else str(arms[0].keep)
        first = " (default)" if name == next(iter(PRESETS)) else ""
        rows.append((quote(name) + first, quote(arms[0].design), keeps, f"{count}{' each' * (len(arms) > 1)}"))
    return format_table(("preset", "design", "keep", "models"), rows)


def list_architectures() -> list[str]:
    """List the architectures with their default recipes and the data sets that they are the default for."""
    rows = [
        (
            quote(name),
            quote(get_default_recipe_name("", name)),
            ", ".join(quote(data) for data, default in ARCHITECTURE_FOR.items() if default == name)
            or "every other" * (name == "resnet18"),
        )
        for name in ARCHITECTURES
    ]
    return format_table(("architecture", "default recipe", "default for"), rows)


def format_schedule(recipe: Recipe) -> str:
    """Format a recipe's schedule of the learning rate."""
    if recipe.schedule != "steps":
        return recipe.schedule
    return f"times {recipe.gamma:g} at epochs {', '.join(f'{epoch:g}' for epoch in recipe.milestones)}"


def list_recipes() -> list[str]:
    """List the recipes with their values and sources."""
    rows = [
        (
            quote(name),
            recipe.epochs,
            recipe.batch,
            f"{recipe.optimizer} {recipe.lr:g}",
            f"{recipe.momentum:g}" * (recipe.optimizer == "sgd"),
            format_schedule(recipe),
            f"{recipe.weight_decay:g}",
            ", ".join(recipe.augment),
            recipe.source,
        )
        for name, recipe in RECIPES.items()
    ]
    header = (
        "recipe",
        "epochs",
        "batch",
        "optimizer, lr",
        "momentum",
        "schedule",
        "weight decay",
        "augmentation",
        "source",
    )
    return format_table(header, rows)


TABLES: dict[str, Callable[[], list[str]]] = {
    "algorithms": list_algorithms,
    "algorithm-parameters": describe_algorithms,
    "measures": list_measures,
    "measure-columns": list_measure_columns,
    "forget-sets": list_forget_sets,
    "scores": list_scores,
    "statistic-columns": list_statistic_columns,
    "file-kinds": list_file_kinds,
    "presets": list_presets,
    "architectures": list_architectures,
    "recipes": list_recipes,
}


def fill_in_tables(text: str) -> str:
    """Replace what stands between the marks of a page by the tables of the code; ValueError for an unknown name."""

    def fill_in(region: re.Match[str]) -> str:
        if region[2] not in TABLES:
            raise ValueError(f"no generated table is called {region[2]!r}; known: {', '.join(TABLES)}")
        return region[1] + "\n".join(TABLES[region[2]]()) + "\n" + region[3]

    return REGION.sub(fill_in, text)


def main() -> int:
    """Write the tables of every page; exit code 0."""
    for page in sorted(FOLDER.glob("*.md")):
        text = page.read_text()
        if (filled := fill_in_tables(text)) != text:
            page.write_text(filled)
            sys.stdout.write(f"wrote {page.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
