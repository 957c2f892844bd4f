"""A page of made-up data with everything that a page can show; also the data of benchmarks/report_page.py."""

import io
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from memscore.report.render import Page, Section

IMAGE_SIDE, SPRITE_COLUMNS, PER_SPRITE = 12, 20, 400
BINS = 16
HOSTILE_IDS = (
    "<script>window.hacked = 1</script>.png",
    '<img src=x onerror="window.hacked = 2">',
    'a, "quoted" id',
    "two\nlines",
    " spaces at the ends ",
    "</script><b>bold</b>",
    "=1+1",
    "caf\u00e9 \u2028 \U0001f600",
)


def make_page(n: int, n_scores: int = 8, n_classes: int = 10, seed: int = 0, *, with_images: bool = True) -> Page:
    """Make a page of n examples, the first of which have ids with markup, quotes and line breaks."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, n_classes, n).astype(np.uint16)
    class_names = [f"class {code}" for code in range(n_classes)]
    class_names[0] = '<b onclick="window.hacked = 3">bold</b> & co'
    memorization = np.clip(rng.beta(0.25, 2.0, n), 0, 1).astype(np.float32)
    answers = np.where(rng.random(n) < 0.8 * memorization, (classes + 1) % n_classes, classes).astype(np.uint16)
    columns: dict[str, np.ndarray | list[str]] = {
        "id": [*HOSTILE_IDS, *(f"train/{row:06}.png" for row in range(n))][:n]
    }
    described: list[dict[str, Any]] = [{"id": "id", "name": "id", "title": "Id", "type": "str", "role": "id"}]

    def add(name: str, values: np.ndarray, title: str, role: str, **more: Any) -> None:
        columns[name] = values
        kind = {"float32": "f4", "uint16": "u2", "uint8": "u1", "bool": "bool", "int32": "i4"}[values.dtype.name]
        described.append({"id": name, "name": name, "title": title, "type": kind, "role": role, **more})

    add("label", classes, "Class", "class")
    add("left_out_answer", answers, "Left-out models answer", "left_out_answer", null=65535)
    add("suspected", (memorization > 0.8) & (answers != classes), "Suspected wrong label", "suspect")
    add("cluster", rng.integers(-1, 5, n).astype(np.int32), "Cluster", "cluster", null=-1)
    for name, values in (("memorization_lo", memorization - 0.05), ("memorization_hi", memorization + 0.05)):
        add(name, values.astype(np.float32), name, "aux")
    probability = {"unit": "probability", "direction": 1, "chosen": True, "group": "Memorization"}
    add(
        "memorization_k0.500",
        memorization,
        "Memorization",
        "score",
        lo="memorization_lo",
        hi="memorization_hi",
        source="a made-up distribution",
        about="how much more often models are right that were trained on it",
        **probability,
    )
    add("p_out_k0.500", 1 - memorization, "p(right | left out)", "p_out", group="Memorization", direction=-1)
    add("p_in_k0.500", np.ones(n, np.float32), "p(right | trained on it)", "p_in", group="Memorization", direction=0)
    for number in range(n_scores - 1):
        noise = rng.normal(0, 0.2 + 0.1 * number, n)
        values = (memorization + noise).astype(np.float32)
        values[rng.random(n) < 0.01] = np.nan
        add(
            f"score_{number}",
            values,
            f"Score {number}",
            "score" if number % 2 else "proxy",
            direction=1 if number % 3 else -1,
            unit="nat",
            group="Attacks" if number % 2 else "Proxies",
            chosen=number < 3,
        )
    models = rng.binomial(64, np.linspace(0.2, 0.9, BINS), (n, BINS)).astype(np.uint8)
    add("inside", models, "counts of models trained on it", "aux")
    add("outside", models[:, ::-1].copy(), "counts of models that left it out", "aux")
    trials = [make_trial(number, memorization, add, rng) for number in range(3)]
    sprites = make_sprites(min(n, 2000), rng) if with_images else []
    meta = {
        "version": 1,
        "title": "synthetic <i>bank</i>",
        "subtitle": f"made-up values of {n:,} examples",
        "store": "~/memscore/synthetic bank",
        "n": n,
        "n_classes": n_classes,
        "class_names": class_names,
        "image": {"w": IMAGE_SIDE, "h": IMAGE_SIDE, "c": 1} if with_images else None,
        "sprites": [{"id": name, "rows": rows, "cols": SPRITE_COLUMNS} for name, rows, _ in sprites],
        "histograms": [
            {
                "arm": "k0.500",
                "title": "Confidence",
                "about": "logit of the label's probability",
                "edges": np.linspace(-8, 8, BINS + 1).tolist(),
                "in": "inside",
                "out": "outside",
            }
        ],
        "influence": {
            "helps": {"10": [[11, 0.31], [12, 0.2]]},
            "helped_by": {"10": [[13, 0.4]]},
            "about": "made up",
        },
        "twins": {"10": [14], "14": [10]},
        "twin_about": "images whose pixels are almost the same",
        "rebuilt": {
            "sprites": [{"id": sprites[0][0], "rows": [10], "cols": SPRITE_COLUMNS}] if sprites else [],
            "about": "from the gradient of one example",
        },
        "trials": trials,
        "attacks": [make_attack(name, title, power) for name, title, power in ATTACKS],
        "audits": [make_attack("audit", "Your model, LiRA", 0.12)],
        "proxies": [
            {
                "id": f"score_{number}",
                "name": f"score_{number}",
                "title": f"Score {number}",
                "direction": 1,
                "rho": {"value": 0.9 - 0.1 * number, "lo": 0.86 - 0.1 * number, "hi": 0.94 - 0.1 * number},
                "seconds": 10.0 ** (2 - number),
                "models": 1,
            }
            for number in range(4)
        ],
        "proxy_target": {"title": "memorization", "id": "memorization_k0.500"},
        "experiments": [make_experiment()],
        "sweeps": [make_sweep(rng)],
        "columns": described,
    }
    head = Markup(
        '<div class="tiles"><div class="tile"><span class="tile-value">256</span>'
        '<span class="tile-label">models</span></div></div>'
    )
    return Page(
        title=str(meta["title"]),
        meta=meta,
        columns=columns,
        sprites={name: png for name, _, png in sprites},
        head=head,
        sections=[
            Section(id=name, title=name.title(), html=Markup(""))
            for name in ("attacks", "proxies", "unlearning", "audits")
        ],
    )


ATTACKS = (("lira", "LiRA", 0.3), ("rmia", "RMIA", 0.2), ("loss", "Loss", 0.05))


def make_trial(number: int, memorization: np.ndarray, add: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Make a trial whose forget set is the 100 most memorized examples, and how well it forgot them."""
    forgotten = np.zeros(len(memorization), bool)
    forgotten[np.argsort(-memorization)[:100]] = True
    oracle = (1 - memorization).astype(np.float32)
    before = np.clip(1 - rng.exponential(0.02, len(memorization)), 0, 1).astype(np.float32)
    share = (0.9, 0.5, 0.0)[number]
    after = np.where(forgotten, share * oracle + (1 - share) * before, before).astype(np.float32)
    for name, values in (("before", before), ("after", after), ("oracle", oracle), ("forget", forgotten)):
        if number == 0 or name == "after":
            add(f"trial{number}_{name}", values, name, "aux")
    title = ("SalUn", "Fine-tuning", "Nothing <b>at all</b>")[number]
    return {
        "id": f"trial{number}",
        "title": title,
        "algorithm": title,
        "params": "epochs=5",
        "forget": "trial0_forget",
        "before": "trial0_before",
        "after": f"trial{number}_after",
        "oracle": "trial0_oracle",
        "measures": [
            {"title": "Tug of war", "value": 0.95 - 0.3 * number, "lo": None, "hi": None, "oracle": [0.9, 1.0]},
            {"title": "Forget accuracy", "value": 0.4 + 0.2 * number, "lo": None, "hi": None, "oracle": [0.35, 0.45]},
        ],
    }


def make_attack(name: str, title: str, power: float) -> dict[str, Any]:
    """Make an attack whose true positive rate is the false positive rate to a power below 1."""
    fpr = np.concatenate([[0], np.logspace(-4, 0, 80)])
    tpr = fpr ** (1 - power)
    rates = (0.001, 0.01, 0.1)
    return {
        "name": name,
        "title": title,
        "roc": {"fpr": fpr, "tpr": tpr, "lo": tpr * 0.9, "hi": np.minimum(1, tpr * 1.1)},
        "auc": {"value": 1 - 1 / (2 - power), "lo": 0.5, "hi": 0.9},
        "thresholds": [
            {
                "fpr": rate,
                "threshold": 4 + np.log10(rate),
                "realized_fpr": rate * 1.1,
                "realized_lo": rate * 0.8,
                "realized_hi": rate * 1.4,
                "tpr": rate ** (1 - power),
                "tpr_lo": 0.9 * rate ** (1 - power),
                "tpr_hi": min(1, 1.1 * rate ** (1 - power)),
                "precision": {"prior": 0.1, "value": 0.5, "lo": 0.4, "hi": 0.6},
            }
            for rate in rates
        ],
    }


def make_experiment() -> dict[str, Any]:
    """Make an experiment of four methods and two measures."""
    names = ("Fine-tuning", "NegGrad+", "SalUn", "A method with a name that is much too long for its place")
    return {
        "id": "rum",
        "title": "RUM: refining the forget set",
        "about": "Each method on three forget sets.",
        "measures": [
            {
                "name": name,
                "title": title,
                "about": "Distance to the oracles; 1 is what retraining reaches.",
                "direction": direction,
                "unit": "",
                "range": [0, 1],
                "oracle": {"value": 0.97, "lo": 0.95, "hi": 0.99},
                "original": {"value": 0.5},
                "methods": [
                    {"name": method, "value": 0.6 + 0.1 * k, "lo": 0.5 + 0.1 * k, "hi": 0.75 + 0.1 * k, "n": 3}
                    for k, method in enumerate(names)
                ],
            }
            for name, title, direction in (("tow", "Tug of war", 1), ("forget", "Forget accuracy", 0))
        ],
    }


def make_sweep(rng: np.random.Generator) -> dict[str, Any]:
    """Make a sweep over two numbers and a word."""
    attempts = [
        {
            "values": [float(10 ** rng.uniform(-4, -1)), float(rng.uniform(0, 1)), ("cosine", "constant")[k % 2]],
            "objective": float(rng.uniform(0.4, 1)) if k else None,
            "chosen": ["oracle"] if k == 3 else ["oracle-free"] if k == 4 else [],
            "failed": None if k else "diverged",
        }
        for k in range(30)
    ]
    return {
        "id": "sweep",
        "title": "Sweep of SalUn",
        "objective": {"title": "Tug of war", "direction": 1},
        "parameters": [
            {"name": "learning rate", "log": True, "lo": 1e-4, "hi": 0.1},
            {"name": "mask share", "log": False, "lo": 0, "hi": 1},
            {"name": "schedule", "log": False},
        ],
        "attempts": attempts,
        "regret": "Choosing without the oracle costs 0.031 of its tug of war.",
    }


def make_sprites(count: int, rng: np.random.Generator) -> list[tuple[str, list[int], bytes]]:
    """Make images of single bright squares, whose place shows which row they are."""
    sprites = []
    for first in range(0, count, PER_SPRITE):
        rows = list(range(first, min(first + PER_SPRITE, count)))
        height = -(-len(rows) // SPRITE_COLUMNS) * IMAGE_SIDE
        pixels = rng.integers(0, 90, (height, SPRITE_COLUMNS * IMAGE_SIDE)).astype(np.uint8)
        for place, row in enumerate(rows):
            top = place // SPRITE_COLUMNS * IMAGE_SIDE + row // IMAGE_SIDE % IMAGE_SIDE
            pixels[top, place % SPRITE_COLUMNS * IMAGE_SIDE + row % IMAGE_SIDE] = 255
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        sprites.append((f"s{first}", rows, buffer.getvalue()))
    return sprites
