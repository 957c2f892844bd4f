"""The images of a page: read again from the data set, and drawn as sprites in the page and beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from memscore.data.splits import Splits
from memscore.pipeline.reload_data import reload_splits
from memscore.report.examples import Examples
from memscore.report.omissions import Omission, read_or_omit
from memscore.report.page_options import PageOptions
from memscore.report.thumbnails import Sprite, choose_extremes, compute_size, draw_sprites
from memscore.store.manifest import IMPORTED
from memscore.store.store import Store
from memscore.units import format_count


@dataclass(frozen=True, kw_only=True, eq=False)
class PageImages:
    """The images of a page.

    Attributes:
        size: width, height and channels of a thumbnail; None where there are no images.
        embedded: sprites in the page.
        beside: sprites beside it.
        splits: the data set, for parts of the page that show other images; None where it could not be read.
        about: which images are where, in a line.
    """

    size: dict[str, int] | None = None
    embedded: list[Sprite] = field(default_factory=list)
    beside: list[Sprite] = field(default_factory=list)
    splits: Splits | None = None
    about: str = ""


def collect_images(store: Store, examples: Examples, options: PageOptions, omissions: list[Omission]) -> PageImages:
    """Read the images of a bank, and draw those of the examples; none for an imported bank without images."""
    splits = read_or_omit("images", omissions, read_splits, store, options)
    if splits is None:
        return PageImages()
    # the most precise ranking that the bank has decides which images are worth their bytes
    images, n = splits.train.images, examples.n
    ranking = examples.find_first("memorization_blend", "memorization", "lira")
    values = examples.read(ranking) if ranking else np.full(n, np.nan)
    rows = choose_extremes(values, options.examples)
    # in the order of the rows, so that a class stands together in most data sets
    others = np.setdiff1d(np.arange(n), rows)
    about = f"all {format_count(n, 'image')} are in the page"
    if len(others):
        order = f"the highest and the lowest {ranking}" if ranking else "the first rows"
        rest = "the others are in the folder beside it" if options.beside else "the others are left out"
        about = f"{format_count(len(rows), 'image')} of {order} are in the page, {rest}"
    return PageImages(
        size=compute_size(images.shape[1:]),
        embedded=draw_sprites(images, rows),
        beside=draw_sprites(images, others) if options.beside else [],
        splits=splits,
        about=f"{about}.",
    )


def read_splits(store: Store, options: PageOptions) -> Splits:
    """Read the bank's data again; ValueError for a bank that was imported without images."""
    if store.manifest.data == IMPORTED and options.data is None:
        raise ValueError("the bank was imported without its data set; import it again with --data to see images")
    return reload_splits(store, options.data, options.folder)


def describe_sprites(sprites: Mapping[str, Sprite], key: str) -> list[dict[str, Any]]:
    """Describe sprites for the page's script: the name of each, the rows that it shows, and its columns."""
    return [{key: name, "rows": sprite.rows, "cols": sprite.columns} for name, sprite in sprites.items()]
