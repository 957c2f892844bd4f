"""What the bank at --store decides where a user leaves options of estimate out."""

import shlex
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from memscore.choices import find_nearest
from memscore.cli.options import format_flags
from memscore.pipeline.config import (
    ARCHITECTURE_FOR,
    DEFAULT_ARCHITECTURE,
    DEFAULT_DATA,
    DEFAULT_PRESET,
    PRESETS,
    BankConfig,
)
from memscore.pipeline.reload_data import is_built_in, is_function, locate_data
from memscore.store.filesystem import Folder
from memscore.store.json_records import read_record
from memscore.store.manifest import get_home_url, split_architecture
from memscore.store.store import Store
from memscore.subsets.designs import Arm, parse_arm_record

READING_OPTIONS = {
    "validation": "validation",
    "test": "test",
    "train_limit": "train_limit",
    "resize": "image_size",
    "skip_bad": "skip_bad",
    "follow_links": "follow_links",
}
"""Keys of data.json -> fields of BankConfig."""
SUBSET_OPTIONS = ("preset", "design", "keep", "block")


def complete_options(config: BankConfig) -> tuple[BankConfig, tuple[str, ...]]:
    """Take the options that are left out, which are None, from the bank at --store, if there is one.

    Returns them completed, and notes for the user: a line with what was taken. A recipe that is left out is the stored
    one: see config.build_recipe. ValueError if the data, the network or a part of the recipe came from a function,
    which is code and must be named, if the data are not where they were, or if the bank has several arms and no option
    names one.
    """
    if config.store is None:
        return config, ()
    try:
        store = Store.open(config.store, check_manifest=True)
    except FileNotFoundError:  # a new bank, or one that lost its manifest, which the same options make again
        return config, () if config.data else describe_new_bank(config.store)
    if store.manifest.imported:  # it is refused where its identity is compared
        return config, ()
    # Whatever is taken is the store's own, so an identity that is compared later differs only where the user says so.
    taken = _take_data(config, store) | _take_network(config, store)
    arms = _take_arms(config, store)
    taken |= arms
    if config.models is None and config.until_rmse is None and arms:
        taken |= _take_count(store, arms)
    # A note names only what a new bank would not have had anyway.
    completed = replace(config, **taken)
    usual = _list_usual_options(completed)
    flags = {name: value for name, value in taken.items() if value != usual[name]}
    if len(flags.get("without", ())) > 1:  # they may be thousands
        flags["without"] = (f"({len(flags['without'])} ids of data.json)",)
    words = format_flags(flags)
    return completed, (f"options left out are those of the stored bank: {shlex.join(words)}",) if words else ()


def describe_new_bank(url: str) -> tuple[str, ...]:
    """Say that a bank of the default data begins where none is stored, and which existing one has a similar name."""
    folder = Folder.from_url(url)
    if folder.names("shards"):  # it lost its manifest, and is no new one
        return ()
    place = folder.display_name
    near = find_near_bank(folder)
    hint = f"; did you mean {near}?" if near else ""
    return (f"there is no bank at {place}: a new one of {DEFAULT_DATA} begins there (--data names other data){hint}",)


def find_near_bank(folder: Folder) -> str:
    """Find the bank of the most similar name, beside a place or in the default folder of banks; empty if none is."""
    homes = [Folder.from_url(str(Path(folder.root).parent))] if folder.local else []
    banks = [
        (name, f"{home.display_name}/{name}")
        for home in (*homes, Folder.from_url(get_home_url()))
        for name in home.folders("")
        if home.exists(f"{name}/manifest.json", 0)
    ]
    name = folder.display_name.rstrip("/").rpartition("/")[2]
    # the folder of the path first, since that is what the user typed
    near = find_nearest(name, [each for each, _ in banks])
    return next((place for each, place in banks if each == near), "")


def _list_usual_options(config: BankConfig) -> dict[str, Any]:
    """Return the options that a new bank of the same data has, which need no note."""
    [usual], count = PRESETS[DEFAULT_PRESET]
    return {field.name: field.default for field in fields(BankConfig)} | {
        "data": DEFAULT_DATA,
        "label_noise": 0.0,
        "seed": 0,
        "arch": ARCHITECTURE_FOR.get(config.data or DEFAULT_DATA, DEFAULT_ARCHITECTURE),
        "design": usual.design,
        "keep": usual.keep,
        "block": usual.block,
        "models": count,
    }


def _take_data(config: BankConfig, store: Store) -> dict[str, Any]:
    """Take data set, options of reading, label noise and seed."""
    origin = store.read_origin() or {}
    taken: dict[str, Any] = {}
    if config.data is None:
        if not origin and not is_built_in(store.manifest.data):
            raise ValueError(
                f"{store.folder.display_name} was made by an earlier version and knows only the name of its data, "
                f"{store.manifest.data!r}; add --data PATH of the data"
            )
        source = locate_data(store, None, config.folder)
        taken |= {"data": source.name, "folder": source.folder}
    known = {field.name for field in fields(BankConfig)}
    for key, option in READING_OPTIONS.items():
        is_left_out = option in known and (getattr(config, option) is None or getattr(config, option) is False)
        if is_left_out and origin.get(key) is not None:
            taken[option] = origin[key]
    if not config.without and origin.get("without"):
        taken["without"] = tuple(origin["without"])
    if config.label_noise is None:
        taken["label_noise"] = float(store.manifest.label_changes.get("label_noise", 0.0))
    if config.seed is None:
        taken["seed"] = store.manifest.seed
    return taken


def _take_network(config: BankConfig, store: Store) -> dict[str, Any]:
    """Take the architecture; and check that no function of the stored recipe is called that the user does not name."""
    for option, value in store.manifest.recipe.items():
        if config.recipe is None and is_function(str(value)) and getattr(config, option, None) is None:
            raise ValueError(
                f"the {option} of {store.folder.display_name} is the function {value}, which is code and runs only "
                f"where you name it: add --{option.replace('_', '-')} {value}, or the --recipe that it came with"
            )
    if config.arch is not None:
        return {}
    arch, start_weights = split_architecture(store.manifest.architecture)
    if is_function(arch):
        raise ValueError(
            f"the network of {store.folder.display_name} came from the function {arch}, which is code and runs "
            f"only where you name it: add --arch {arch}{' --pretrained FILE' if start_weights else ''}"
        )
    if not start_weights or config.pretrained is not None:
        return {"arch": arch}
    from memscore.pipeline.start_weights import load_start_weights  # brings torch

    load_start_weights(store)
    return {"arch": store.manifest.architecture}


def _take_arms(config: BankConfig, store: Store) -> dict[str, Any]:
    """Take how subsets are drawn, unless an option of subsets is given."""
    if any(getattr(config, name) is not None for name in SUBSET_OPTIONS):
        return {}
    arms = {name: parse_arm_record(record) for name, record in store.arms().items()}
    if len(arms) == 1:
        [arm] = arms.values()
        return {"design": arm.design, "keep": arm.keep, "block": arm.block}
    if not arms:
        return {}
    # several arms are named by the preset that has exactly these, if there is one
    for preset, (designs, _) in PRESETS.items():
        if {arm.name for arm in designs} == arms.keys():
            return {"preset": preset}
    raise ValueError(
        f"{store.folder.display_name} has {len(arms)} arms, {', '.join(arms)}; give --design and --keep (and --block) "
        "of the one to train"
    )


def _take_count(store: Store, arms: Mapping[str, Any]) -> dict[str, Any]:
    """Take the number of models that was requested last; nothing if no command noted one."""
    if "preset" in arms:
        return {}
    name = Arm(**arms).name
    try:
        planned = read_record(store.folder, "progress.json").get("planned") or {}
    except (FileNotFoundError, ValueError):  # a run that was killed at once, or a damaged record, which is overwritten
        return {}
    return {"models": planned[name]} if planned.get(name) else {}
