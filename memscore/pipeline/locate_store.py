"""Where a bank's store is, and in which precision its models are trained.

`--precision auto` is resolved once, when a store is created, from the device of the workers, and is a plain value in
the manifest from then on. So any later run opens the store, whatever its device: one that the user names has its own
precision, and with a default name, which ends in a hash of the recipe, the bank is looked for in each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from memscore.pipeline.config import AUTO, DEFAULT_DATA, BankConfig
from memscore.store.filesystem import Folder
from memscore.store.manifest import Manifest, build_default_url
from memscore.store.shards import match_shards
from memscore.store.store import Store
from memscore.training.precision import (
    list_manifest_convolutions,
    may_have_tf32,
    replace_precision,
    require_own_head,
    require_trainable,
    resolve_precision,
)
from memscore.training.recipes import RECIPES

OWN_SOURCE = "memscore"
"""How the source of a recipe begins that is not a paper's."""

FLOAT32_COST = (
    "precision float32 takes about 3 times as long as --precision tf32 on a GPU and 7 times as long as bfloat16 "
    "(estimates from the peak rates of an H200, for a ResNet-18)"
)


@dataclass(frozen=True, kw_only=True)
class StoreLocation:
    """Where a bank's store is or will be.

    Attributes:
        url: path or URL.
        manifest: of the bank, in the precision of its store.
        notes: lines on the precision for the user.
    """

    url: str
    manifest: Manifest
    notes: tuple[str, ...] = ()


def locate_store(config: BankConfig, manifest: Manifest, recipe_name: str, device: str) -> StoreLocation:
    """Find the store of a bank, or decide about a new one; nothing is written.

    The manifest is in the precision that the user or, with "auto", the recipe names, and the result's in the store's;
    the recipe's name is in RECIPES or module:function, and the device, "cpu" or "cuda", is that of the workers.
    ValueError for a new store in a precision in which the device cannot train its network.
    """
    is_auto, named = config.precision == AUTO, manifest.precision
    # Only precisions of a GPU depend on convolutions, so that a bank on a CPU need not look for them.
    depends_on_layers = named == "tf32" or (named, device) == ("float32", "cuda")
    has_convolutions = depends_on_layers and bool(list_manifest_convolutions(manifest))
    here = resolve_precision(named, device, has_convolutions=has_convolutions) if is_auto else named
    # This device's own first, then that of the other kind of device.
    choices = list(dict.fromkeys((here, named, "tf32"))) if is_auto and named == "float32" else [here]
    urls = {
        precision: build_default_url(
            config.data or DEFAULT_DATA, manifest.architecture, recipe_name, replace_precision(manifest, precision)
        )
        if config.store is None
        else config.store
        for precision in choices
    }
    # A location that the user names is one for all.
    stored = [
        read_stored_precision(url, manifest, [p for p in choices if urls[p] == url])
        for url in dict.fromkeys(urls.values())
    ]
    found = [precision for precision in stored if precision]
    # A precision that the user names is this bank's, and opening a store of another one is refused.
    precision = found[0] if found and is_auto else here
    # Where the user names the location, its store may have a precision that "auto" would never choose.
    url, located = urls.get(precision, urls[here]), replace_precision(manifest, precision)
    if not found:
        check_new_bank(located, device, has_convolutions=has_convolutions)
    notes = []
    if precision != here:
        notes.append(f"precision {precision}, as the stored models; a new bank for this device would have {here}")
    notes += [
        f"a bank of these options in precision {other} is stored too: {Folder.from_url(urls[other]).display_name}"
        for other in found[1:]
    ]
    is_published = recipe_name in RECIPES and not RECIPES[recipe_name].source.startswith(OWN_SOURCE)
    if precision == "tf32" and is_published:
        notes.append("the paper's code ran float32 as torch's default: TF32 in convolutions on the paper's GPU")
    if (precision, device) == ("float32", "cuda") and has_convolutions and may_have_tf32():
        notes.append(FLOAT32_COST)
    return StoreLocation(url=url, manifest=located, notes=tuple(notes))


def read_stored_precision(url: str, manifest: Manifest, precisions: Sequence[str]) -> str | None:
    """Return the precision of the store at a location; None if there is none."""
    folder = Folder.from_url(url)
    if folder.exists("manifest.json", retry_s=0):
        return Store.open(url).manifest.precision
    # A store that lost its manifest is known by its shards: see memscore/store/manifest_file.py.
    digests = {precision: replace_precision(manifest, precision).digest for precision in precisions}
    return next((precision for precision, digest in digests.items() if match_shards(folder, digest)), None)


def check_new_bank(manifest: Manifest, device: str, *, has_convolutions: bool) -> None:
    """Raise ValueError if a bank that is not stored yet cannot be trained on the device, or need not be in tf32."""
    require_trainable(manifest, device)
    if manifest.precision == "bfloat16":
        require_own_head(manifest)
    if manifest.precision == "tf32" and not has_convolutions:
        raise ValueError(
            f"--precision tf32 is of convolutions, and {manifest.architecture} has none; use --precision float32, "
            "which gives the same numbers, or leave it out"
        )
