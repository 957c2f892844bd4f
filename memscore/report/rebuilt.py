"""Images that gradient inversion rebuilt, as sprites of a page."""

from dataclasses import dataclass

import numpy as np

from memscore.plots.inversion import KINDS
from memscore.proxies.storage import read_rebuilt_images, read_stored_inversions
from memscore.report.thumbnails import Sprite, draw_sprites
from memscore.store.store import Store

FIRST_ORIGINAL = "original-00000"


@dataclass(frozen=True, kw_only=True, eq=False)
class RebuiltImages:
    """Rebuilt images, and what they are in a line."""

    sprites: list[Sprite]
    about: str


def draw_rebuilt(store: Store, n: int) -> RebuiltImages | None:
    """Draw what was rebuilt from the first original, which alone keeps images; None where nothing was."""
    inversions = read_stored_inversions(store)
    receipt = store.read_receipt(FIRST_ORIGINAL) if inversions else None
    if not receipt or "key" not in receipt:
        return None
    # one kind is enough on a page: of the model that was trained on all, else of the half with the example
    columns = read_rebuilt_images(store, [str(receipt["key"])], inversions)
    kind = next((kind for kind in KINDS if kind in columns), None)
    if kind is None:
        return None
    rows = np.asarray(columns["row"], np.int64)
    inside = rows < n
    images = columns[kind].reshape(-1, *store.manifest.input_shape)[inside]
    # a sprite is drawn of images by their places, and names the examples that they are of
    sprites = [
        Sprite(rows=rows[inside][sprite.rows].tolist(), columns=sprite.columns, png=sprite.png)
        for sprite in draw_sprites(images.astype(np.uint8), np.arange(len(images)))
    ]
    return RebuiltImages(sprites=sprites, about=f"By gradient inversion from the first original, {KINDS[kind]}.")
