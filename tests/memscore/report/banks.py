"""Banks for tests of the page, and what is read back from a page that was written."""

import json
import re
import shutil
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa

from memscore.store.json_records import encode_record
from memscore.store.store import Store
from memscore.store.trial_files import list_trials, read_trial

TYPES = {"f4": "<f4", "u1": "u1", "u2": "<u2", "i4": "<i4", "bool": "u1"}


class WrittenPage(HTMLParser):
    """What stands in a page: its data, the tables with their stored numbers, and all that it could load."""

    def __init__(self, text):
        super().__init__()
        self.text = text
        self.scripts, self.tables, self.links, self.tags, self.words = [], {}, [], [], []
        self._script = self._table = self._cell = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.links += [found[name] for name in ("src", "href", "srcset", "data", "action") if found.get(name)]
        if tag == "script":
            self._script = [found, ""]
        elif tag == "table" and "data-table" in found:
            self._table = self.tables.setdefault(found["data-table"], [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in {"td", "th"} and self._table is not None:
            numbers = {key: float(found[f"data-{key}"]) for key in ("value", "lo", "hi") if f"data-{key}" in found}
            self._cell = {"text": "", **numbers}
            self._table[-1].append(self._cell)

    def handle_endtag(self, tag):
        if tag == "script":
            self.scripts.append(tuple(self._script))
            self._script = None
        elif tag == "table":
            self._table = None
        elif tag in {"td", "th"}:
            self._cell = None

    def handle_data(self, text):
        if self._script is not None:
            self._script[1] += text
            return
        self.words.append(text)
        if self._cell is not None:
            self._cell["text"] += text.strip()

    @property
    def meta(self):
        return json.loads(next(text for found, text in self.scripts if found.get("id") == "meta"))

    @property
    def shown(self):
        """The text that a reader sees."""
        return re.sub(r"\s+", " ", " ".join(self.words))

    def column(self, name, part=None):
        """The values of a column by its name, or the ends of its interval."""
        described = {each["name"]: each for each in self.meta["columns"] if each["role"] != "aux"}[name]
        return self.values(described["id"] if part is None else described[part])

    def values(self, identity):
        [kind] = [each["type"] for each in self.meta["columns"] if each["id"] == identity]
        text = next(text for found, text in self.scripts if found.get("data-column") == identity)
        return json.loads(text) if kind == "str" else np.frombuffer(b64decode(text), TYPES[kind])

    def rows(self, name):
        """The cells of a table by the titles of its columns."""
        header, *rows = self.tables[name]
        titles = [cell["text"] for cell in header]
        return [dict(zip(titles, row, strict=True)) for row in rows]


def write_page(store, folder, *more):
    """Write the page of a store as the command does, and read it back."""
    from memscore.report.__main__ import main

    path = folder / "page.html"
    assert main([str(store), "--out", str(path), *map(str, more)]) == 0
    return WrittenPage(path.read_text())


def copy_bank(store, folder):
    return Store.open(shutil.copytree(store, folder / "store"))


def make_sweep_and_experiment(store):
    """Write a sweep and an experiment from the rows of stored trials, as the commands do."""
    trials = [read_trial(store, name) for name in list_trials(store)]
    rows = []
    for trial in trials:
        is_method = trial["algorithm"] not in {"oracle", "original"}
        rows.append(
            trial
            | {
                "contender": trial["algorithm"],
                "select": "oracle" if is_method else "",
                "level": int(is_method),
                "levels": int(is_method),
                "attempt": 0,
                "tuning": 0 if is_method else -1,
            }
        )
    store.write_table("sweeps/one/trials.parquet", pa.Table.from_pylist([row | {"role": "judged"} for row in rows]))
    chosen = {
        "contender": "finetune",
        "variant": "vanilla",
        "select": "oracle",
        "tuning": 0,
        "steps": [{"algorithm": "finetune", "params": {"lr": 0.25}}],
        "objective": [0.75],
        "at_boundary": ["finetune.lr"],
        "ended_early": "",
        "attempts": 4,
        "runs": 8,
        "tuning_s": 1.5,
    }
    record = {
        "tunings": [{"forget_set": "another random of 12", "n": 12}],
        "judged_on": {"forget_set": "random of 12", "n": 12},
        "chosen": [chosen],
        "regret": [{"value": 0.0625, "lo": -0.5, "hi": 0.625, "of": ["finetune", "vanilla"]}],
        "populations": [],
        "failed": [],
        "notes": ["a note of the sweep"],
    }
    store.folder.replace("sweeps/one/sweep.json", encode_record({"forget": "random", "seeds": 2}))
    store.folder.replace("sweeps/one/chosen.json", encode_record(record))
    store.write_table("experiments/rum-1/rows.parquet", pa.Table.from_pylist([row | {"part": "all"} for row in rows]))
    claims = [
        {
            "claim": f"claim <b>{verdict}</b>",
            "paper": ".9 to .8",
            "value": {"value": value, "lo": value - 1, "hi": value + 1},
            "p_family": 0.03125,
            "verdict": verdict,
            "uncorrected": verdict,
            "family": "claims",
        }
        for verdict, value in {"holds": 1.5, "fails": -1.5, "undecided": 0.125}.items()
    ]
    findings = {"experiment": "rum", "findings": claims, "remarks": ["a remark of the experiment"]}
    store.folder.replace("experiments/rum-1/findings.json", encode_record(findings))
