"""Build the page of a bank: collect from its store what can be read, and name what cannot."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from memscore.monitoring.status import compute_bank_status
from memscore.pipeline.outlying_models import SUMMARY
from memscore.report.attacks import build_attacks
from memscore.report.audits import build_audits
from memscore.report.columns import Columns
from memscore.report.confidences import add_confidences
from memscore.report.copies import collect_twins
from memscore.report.examples import Examples, add_examples, read_examples
from memscore.report.head import build_head
from memscore.report.images import PageImages, collect_images, describe_sprites
from memscore.report.influence import build_influence
from memscore.report.omissions import Omission, read_or_omit
from memscore.report.page_options import PageOptions
from memscore.report.parts import Part
from memscore.report.proxies import build_proxies
from memscore.report.render import Page, Section, render_page, render_part
from memscore.report.score_tables import build_scores
from memscore.report.unlearning import build_unlearning
from memscore.store.json_records import read_record
from memscore.store.store import Store

if TYPE_CHECKING:
    from memscore.report.rebuilt import RebuiltImages


@dataclass(frozen=True, kw_only=True, eq=False)
class BuiltPage:
    """A page and the files beside it.

    Attributes:
        html: the page.
        files: name within the folder beside it -> content.
        examples: the examples that it shows.
        images: their images.
        omissions: what it does not show.
    """

    html: str
    files: dict[str, bytes]
    examples: Examples
    images: PageImages
    parts: list[Part]
    omissions: list[Omission]


def build_page(store: Store, options: PageOptions, folder_beside: str) -> BuiltPage:
    """Build the page of a store; files beside it are linked by the name of their folder."""
    omissions: list[Omission] = []
    status = compute_bank_status(store)
    omissions += [Omission(what="a file of the store", reason=problem) for problem in status.problems]
    summary = read_summary(store, omissions)
    examples = read_examples(store, omissions)
    # columns first: parts below refer to them by id
    columns = Columns()
    add_examples(columns, examples, store.class_names)
    images = collect_images(store, examples, options, omissions)
    rebuilt = read_or_omit("rebuilt images", omissions, draw_rebuilt_images, store, examples.n)
    head = build_head(store, status, summary, examples.n, omissions)
    sprites = {f"s{number}": sprite for number, sprite in enumerate(images.embedded)}
    rebuilt_sprites = {f"r{number}": sprite for number, sprite in enumerate(rebuilt.sprites if rebuilt else [])}
    beside = {f"sprite-{number:05}.png": sprite for number, sprite in enumerate(images.beside)}
    meta: dict[str, Any] = {
        "version": 1,
        "title": head.title,
        "subtitle": head.subtitle,
        "store": store.folder.display_name,
        "n": examples.n,
        "n_classes": store.manifest.n_classes,
        "class_names": list(store.class_names),
        "image": images.size,
        "image_about": images.about,
        "sprites": describe_sprites(sprites, "id"),
        "sprites_elsewhere": {"folder": folder_beside, "sprites": describe_sprites(beside, "file")},
        "rebuilt": rebuilt and {"sprites": describe_sprites(rebuilt_sprites, "id"), "about": rebuilt.about},
        "histograms": add_confidences(columns, store, examples.n, omissions),
        **collect_twins(store, examples.n, omissions),
    }
    # parts add columns too, so their descriptions are complete only now
    parts = collect_parts(store, examples, columns, summary, meta, omissions)
    meta["columns"] = columns.described
    page = Page(
        title=head.title,
        meta=meta,
        columns=columns.values,
        sprites={name: sprite.png for name, sprite in (sprites | rebuilt_sprites).items()},
        head=render_part("head.html", head=head, omissions=merge_omissions(omissions), version=name_version()),
        sections=[Section(id=part.id, title=part.title, html=render_part("section.html", part=part)) for part in parts],
    )
    return BuiltPage(
        html=render_page(page),
        files={name: sprite.png for name, sprite in beside.items()},
        examples=examples,
        images=images,
        parts=parts,
        omissions=omissions,
    )


def draw_rebuilt_images(store: Store, n: int) -> "RebuiltImages | None":
    """Draw images that were rebuilt; None where the bank has none, as most."""
    if not store.folder.names("rebuilt"):
        return None
    from memscore.report.rebuilt import draw_rebuilt  # imports torch, which nothing else of a page needs

    return draw_rebuilt(store, n)


def collect_parts(
    store: Store,
    examples: Examples,
    columns: Columns,
    summary: Mapping[str, Any] | None,
    meta: dict[str, Any],
    omissions: list[Omission],
) -> list[Part]:
    """Collect the sections below the examples, in their order, and put what their figures are drawn from into meta."""
    by_name = {column["name"]: column for column in columns.described if column["role"] != "aux"}
    influence, pairs = build_influence(store, examples.n, store.class_names, omissions)
    if pairs:
        meta["influence"] = pairs
    parts = [
        build_attacks(store, summary, store.class_names, omissions),
        build_proxies(store, by_name, omissions),
        build_unlearning(store, columns, examples.n, omissions),
        build_audits(store, columns, examples.n, omissions),
        influence,
        build_scores(examples, summary),
    ]
    built = [part for part in parts if part]
    for part in built:
        meta |= part.meta
    return built


def read_summary(store: Store, omissions: list[Omission]) -> Mapping[str, Any] | None:
    """Read the numbers of the last scoring; None where the bank has none, or they are damaged."""
    if not store.folder.exists(SUMMARY):
        reason = f"the bank was not scored yet; run {store.rebuild_command}"
        omissions.append(Omission(what="accuracies and attacks", reason=reason, is_fault=False))
        return None
    return read_or_omit("accuracies and attacks", omissions, read_record, store.folder, SUMMARY)


def merge_omissions(omissions: list[Omission]) -> list[Omission]:
    """Merge omissions for one reason, as a damaged file that several parts of the page need."""
    whats: dict[tuple[str, bool], list[str]] = {}
    # damage before what was never made
    for omission in sorted(omissions, key=lambda omission: not omission.is_fault):
        whats.setdefault((omission.reason, omission.is_fault), []).append(omission.what)
    return [
        Omission(what=", ".join(dict.fromkeys(names)), reason=reason, is_fault=is_fault)
        for (reason, is_fault), names in whats.items()
    ]


def name_version() -> str:
    """Name the version that writes the page."""
    try:
        return f"memscore {metadata.version('memscore')}"
    except metadata.PackageNotFoundError:
        return "memscore, not installed"
