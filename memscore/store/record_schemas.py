"""What the records of a store hold: a schema of each kind, checked whenever one is read.

A checksum tells that a record is what was written, not that a sound program wrote it, nor that it lies in its place. So
types, ranges and the name are checked in one place, and no reader has to.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from memscore.store.path_patterns import HASH, compile_pattern, get_stem, split_scenario
from memscore.store.record_checks import (
    NAME,
    Check,
    anything,
    flag,
    listing,
    mapping,
    matching,
    nullable,
    number,
    one_of,
    record,
    show,
    text,
    whole,
)

name = matching(NAME, "a name without slashes and control characters")
key = matching(HASH, "64 hex digits")
share = number(0, 1)
seconds = number(0)
texts = listing(text)
MAX_NAME = 200
MAX_ROWS = 2**31 - 1
MAX_TIME = 1e11  # in seconds since 1970, which no year has that is printed

VERSIONS: Mapping[str, Check] = dict.fromkeys(("python", "numpy", "torch", "matmul", "engine"), nullable(text))
TIMES: Mapping[str, Check] = dict.fromkeys(("train_s", "events_s", "evaluation_events_s"), nullable(seconds))
RECEIPT: Mapping[str, Check] = {"model": name, "diverged": flag, "seconds": nullable(seconds)}
"""The seconds are null in the receipt of an imported model, and of one that was restored from its shard."""
MORE_OF_RECEIPT: Mapping[str, Check] = {
    "n_members": whole(),
    "worker": nullable(text),
    "device": nullable(text),
    **VERSIONS,
    **TIMES,
    "accuracy": mapping(nullable(share)),
    "removed": whole(),
    "differs": flag,
    "differing": texts,
    "restored": flag,
}
TIMED = {"seconds": seconds}
"""Originals and oracles are trained here, so their time is known."""


RECIPE: Mapping[str, Check] = {
    **dict.fromkeys(("epochs", "batch", "crop_padding"), whole()),
    **dict.fromkeys(("lr", "momentum", "weight_decay", "gamma", "warmup", "label_smoothing"), number()),
    **dict.fromkeys(("optimizer", "schedule", "precision", "optimizer_sha256", "schedule_sha256"), text),
    "nesterov": flag,
    "milestones": listing(number()),
    "augment": texts,
}
"""Recipe checks their values."""


def check_network(manifest: Mapping[str, Any]) -> str:
    """Check that images, normalization and classes go together; an imported bank may know none of them."""
    # each number is sound alone; together they are the shape of every array that is made of the store
    n_train, *others = manifest["split_sizes"]
    if n_train < 1 or n_train + sum(others) > MAX_ROWS:
        return f".split_sizes must be 1 or more training examples and {MAX_ROWS} in all, got {n_train} and {others}"
    if manifest["architecture"] == "imported":
        return ""
    channels, *size = manifest["input_shape"]
    if min(channels, *size, manifest["n_classes"]) < 1:
        return ".input_shape and n_classes must be 1 or more"
    lengths = [len(manifest[each]) for each in ("mean", "std")]
    return "" if lengths == [channels] * 2 else f".mean and std must be of {channels} channels, got {lengths}"


def check_block(arm: Mapping[str, Any]) -> str:
    """Check that an arm's design and fraction allow its blocks, by the rules of memscore.subsets.designs.Arm."""
    # written here again, for the store knows no designs; a test compares both over a grid
    design, keep, block = arm["design"], arm["keep"], arm["block"]
    members = keep * block
    # an example is in exactly keep * block models of a block, up to the rounding of the product
    is_whole = abs(members - round(members)) <= 1e-9 and 0 < round(members) < block
    if design == "orthogonal":
        # an orthogonal array exists for powers of its number of levels
        levels = {0.5: 2, 0.75: 4}.get(keep, 0)
        is_whole = levels > 0 and block >= levels and block == levels ** round(math.log(block, levels))
    if (design == "iid") != (block == 1) or (block > 1 and not is_whole):
        return f"must have blocks that its design and fraction allow, got {design}, {keep:g}, {block}"
    return ""


def check_proxy(receipt: Mapping[str, Any]) -> str:
    """Check that a receipt of a proxy says of which model, and how long it took."""
    # the receipts of proxies are found by this entry, whatever their name
    missing = [entry for entry in ("key", "seconds") if "ending" in receipt and receipt.get(entry) is None]
    return f"has no entry {missing[0]!r}" if missing else ""


class Schema(NamedTuple):
    """What records of one kind hold."""

    check: Check
    named_by: str = ""
    """Entry that names what the record is of: its file's name, or the hash that this begins with."""
    relate: Callable[[Any], str] | None = None
    """Check of entries with each other, once each of them has passed."""


measure = record({"measure": text, "value": number(), "median": number(), "z": number()}, closed=True)
SCHEMAS: Mapping[str, Schema] = {
    "manifest.json": Schema(
        record(
            {
                "schema_version": whole(1),
                "fingerprint": text,
                "data": text,
                "split_sizes": listing(whole(0, 2**31 - 1), 3),
                "n_classes": whole(0, 10**7),
                "input_shape": listing(whole(0, 10**6), 3),
                "mean": listing(number()),
                "std": listing(number(0)),
                "label_changes": record({}, {"label_noise": share}),
                "architecture": text,
                "recipe": record({}, RECIPE),
                "precision": text,
                "seed": whole(-(2**63), 2**64),
            },
            closed=True,
        ),
        relate=check_network,
    ),
    "data.json": Schema(
        record(
            {"name": nullable(text)},
            {
                "path": nullable(text),
                "folder": nullable(text),
                "class_names": nullable(texts),
                "image_size": nullable(listing(whole(1), 2)),
                "left_out": listing(anything),
                "resize": nullable(anything),
                "skip_bad": nullable(flag),
                "test": nullable(number(0)),
                "train_limit": nullable(whole(1)),
                "validation": nullable(number(0)),
                "without": listing(text),
                "network": nullable(record({"sha256": text, "parameters": whole()})),
            },
        )
    ),
    "arms/ARM.json": Schema(
        record(
            {
                "name": name,
                "design": one_of("iid", "exact", "orthogonal"),
                "keep": number(1e-9, 1 - 1e-9),
                "block": whole(1, 2**20),
                "suffix": name,
            },
            {"clusters": nullable(key), "queries": whole(1, 10_000)},
        ),
        named_by="name",
        relate=check_block,
    ),
    # the order matters: the first pattern counts, and MODEL matches an original too
    "receipts/original-INDEX.json": Schema(record({**RECEIPT, "key": key, **TIMED}, MORE_OF_RECEIPT), named_by="model"),
    "receipts/oracle-ID.json": Schema(record({**RECEIPT, "key": key, **TIMED}, MORE_OF_RECEIPT), named_by="model"),
    "receipts/KEY-PROXY.json": Schema(
        record(
            {"key": key, "seconds": seconds},
            {
                **VERSIONS,
                "ending": name,
                "weights": nullable(key),
                "rebuilt": anything,
                "proxy": text,
                "original": name,
            },
        ),
        named_by="key",
    ),
    "receipts/MODEL.json": Schema(record(RECEIPT, {**MORE_OF_RECEIPT, "key": key}), named_by="model"),
    "receipts/NAME.json": Schema(
        record({}, {**RECEIPT, **MORE_OF_RECEIPT, "key": text, "ending": name}), named_by="model", relate=check_proxy
    ),
    # records of earlier versions have no model
    "failures/NAME.json": Schema(
        record({"kind": text, "error": text}, {"traceback": nullable(text), "model": text}), named_by="model"
    ),
    "progress.json": Schema(
        record(
            {
                "run": text,
                "state": one_of("running", "ended", "stopped"),
                "pid": whole(),
                "host": text,
                # a date that no calendar has would end the page that prints it
                "began": number(0, MAX_TIME),
                "at": number(0, MAX_TIME),
                "every_s": number(0, MAX_TIME),
            },
            {
                "phase": text,
                "planned": mapping(nullable(whole()), name),
                "wish": nullable(number()),
                "models": mapping(whole(), name),
                "rmse": mapping(nullable(number()), name),
                **dict.fromkeys(("done", "total", "trained", "failed", "diverged", "workers", "bytes"), whole()),
                "retried": mapping(whole()),
                "busy": nullable(whole()),
                "rate_per_s": nullable(number(0)),
                "eta_s": nullable(number()),
                "line": text,
                "space": text,
            },
        )
    ),
    "reports/summary.json": Schema(
        record(
            {
                "arms": listing(
                    record(
                        {"suffix": name, "attacks": mapping(anything)},
                        {
                            "groups": nullable(whole()),
                            "curves": whole(),
                            "outlying_models": listing(record({"model": name, "deviations": listing(measure)})),
                        },
                    )
                ),
                "originals": whole(0, 10**6),
            },
            {
                "exact_copies": nullable(mapping(anything)),
                "outputs_are": nullable(text),
                "class_names": texts,
            },
        )
    ),
    "reports/fidelity_SUFFIX.json": Schema(
        record({
            "standings": record({"rows": listing(record({"shares_models": flag}))}),
            "suffix": name,
            "signals": listing(record({"risk": name})),
        })
    ),
    "reports/influence_NAME.json": Schema(record({"arm": name, "targets": text}, {"least": text, "top": text})),
    "reports/audit-NAME.json": Schema(record({"arm": name, "trusted": flag, "reasons": texts})),
    "trials/KEY-population.json": Schema(
        record({
            "population": record({"algorithm": text, "originals": listing(whole())}),
            "measures": mapping(mapping(nullable(number()))),
        })
    ),
    "trials/measures.json": Schema(
        record({
            "columns": mapping(
                record(
                    {
                        "best": one_of("max", "min", "oracle", "none"),
                        **dict.fromkeys(("unit", "ideal", "description"), text),
                    },
                    {"paper": text, "endings": texts},
                )
            )
        })
    ),
    # values and parameters are checked by the algorithm that takes them
    "attempts/SEARCH/VALUES.json": Schema(
        record({
            "values": mapping(anything),
            "trials": listing(key),
            "tow": nullable(number()),
            "blind": nullable(number()),
            "wall_s": number(),
            "examples": whole(),
            "diverged": whole(),
        })
    ),
    "sweeps/NAME/sweep.json": Schema(
        record(
            {"forget": text, "seeds": whole()},
            {
                "budget": whole(),
                "size": nullable(whole()),
                "algorithms": texts,
                "scores": texts,
                "seed": whole(-(2**63)),
            },
        )
    ),
    "sweeps/NAME/chosen.json": Schema(
        record(
            {
                "chosen": listing(
                    record({
                        "contender": text,
                        "variant": text,
                        "select": text,
                        "steps": listing(record({"algorithm": text, "params": mapping(anything)})),
                    })
                ),
                "failed": listing(anything),
            },
            {
                "tuned_on": record({"forget_set": text}),
                "tunings": listing(record({"forget_set": text})),
                "judged_on": record({"forget_set": text}),
            },
        )
    ),
    "experiments/NAME/findings.json": Schema(record({"experiment": text, "findings": listing(anything)})),
}
"""Pattern of paths, as in file_kinds.py -> what records there hold; a path is of the first pattern that it matches."""


def find_schema(path: str) -> Schema | None:
    """Find the schema of the record at a path within a store; None where no command writes one."""
    inner = split_scenario(path)[1]
    return next((schema for pattern, schema in SCHEMAS.items() if compile_pattern(pattern).fullmatch(inner)), None)


def find_record_fault(path: str, content: Mapping[str, Any]) -> str:
    """Find out why a record is not one of the kind that its path says, or not of its name; empty if it is."""
    schema = find_schema(path)
    if schema is None:
        return ""
    # The name first: a record of something else, copied here, has sound entries, and says the wrong thing with them.
    stem = get_stem(path)
    hashed = re.match(HASH, stem)
    names = [stem, hashed[0]] if hashed else [stem]
    if schema.named_by and content.get(schema.named_by, stem) not in names:
        other = content[schema.named_by]
        return f"it is the file of {other[:MAX_NAME] if isinstance(other, str) else show(other)}"
    fault = schema.check(content) or (schema.relate(content) if schema.relate else "")
    if fault.startswith("has no entry "):
        return f"it is another file, without an entry {fault.removeprefix('has no entry ')}"
    return f"it{'s ' + fault[1:] if fault.startswith('.') else ' ' + fault}" if fault else ""
