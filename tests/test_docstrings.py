"""Docstrings follow their tier: full for exported names and equations, one line for the rest, none for nested ones."""

import ast
import fnmatch
import io
import tokenize
import tomllib
from functools import cache
from pathlib import Path

import memscore
import memscore.store

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for package in ("memscore", "unlearn", "cluster") for path in (ROOT / package).rglob("*.py"))
SECTIONS = ("Args:", "Returns:", "Raises:")
CONTRACTS = {
    ("cluster/pool.py", "run"),
    ("cluster/search.py", "search"),
    ("memscore/analysis/influence_pairs.py", "find_influence_pairs"),
    ("memscore/pipeline/map_reduce.py", "write"),
    ("memscore/store/block_reader.py", "read_blocks"),
    ("memscore/store/json_records.py", "add_arm"),
    ("memscore/store/parquet.py", "to_table"),
    ("memscore/store/remote.py", "retry"),
    ("memscore/store/score_files.py", "encode_score"),
}
"""Contracts that several callers or classes rely on, and the formats of files: they stand there once, in full."""
LEAST_COMMENTS = 0.03


@cache
def list_one_line_patterns():
    """Patterns of the files in which pydoclint is off, since a line says what a function does."""
    ignored = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["per-file-ignores"]
    return [
        pattern for pattern, rules in ignored.items() if "DOC" in rules and not pattern.startswith(("tests", "bench"))
    ]


def expand_braces(pattern):
    """Patterns without {a,b}, which fnmatch does not know."""
    before, brace, rest = pattern.partition("{")
    if not brace:
        return [pattern]
    inner, _, after = rest.partition("}")
    return [whole for part in inner.split(",") for whole in expand_braces(before + part + after)]


def has_one_line_docstrings(name):
    patterns = [part for pattern in list_one_line_patterns() for part in expand_braces(pattern)]
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def list_functions(tree):
    """Every function of a module with whether it stands within another one."""
    nested = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef)
        for inner in ast.walk(outer)
        if inner is not outer
    }
    return [(node, node in nested) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def test_a_docstring_is_of_its_tier():
    for path in SOURCES:
        name = str(path.relative_to(ROOT))
        one_line = has_one_line_docstrings(name)
        for function, nested in list_functions(ast.parse(path.read_text())):
            text = ast.get_docstring(function) or ""
            where = f"{name}:{function.lineno} {function.name}"
            if nested and (name, function.name) not in CONTRACTS:
                assert not text, f"{where} is nested: it needs no docstring, at most a comment"
            elif one_line and (name, function.name) not in CONTRACTS:
                assert not any(section in text for section in SECTIONS), f"{where} needs one line, or a line and prose"


def test_exported_names_have_full_docstrings():
    exported = [memscore.load_dataset, *(getattr(memscore.store, name) for name in memscore.store.__all__)]
    for thing in exported:
        assert thing.__doc__, thing
        methods = [] if callable(thing) and not isinstance(thing, type) else vars(thing).items()
        without = [
            name for name, method in methods if not name.startswith("_") and callable(method) and not method.__doc__
        ]
        assert not without, f"{thing.__name__} is exported, and these have no docstring: {without}"
    for section in SECTIONS:
        assert section in memscore.load_dataset.__doc__


def count_comments(text):
    """Comments on lines of their own, without directives for tools."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(
        token.type == tokenize.COMMENT and token.line.lstrip().startswith("#") and "type:" not in token.string
        for token in tokens
    )


def test_comments_say_why_where_the_code_is_hard():
    texts = [path.read_text() for path in SOURCES]
    share = sum(map(count_comments, texts)) / sum(text.count("\n") for text in texts)
    assert share >= LEAST_COMMENTS, f"{share:.1%} of the lines are comments; hard code needs some"


def test_patterns_of_the_tiers_match_files():
    assert has_one_line_docstrings("memscore/store/parquet.py")
    assert has_one_line_docstrings("memscore/store/shards.py")
    assert not has_one_line_docstrings("memscore/store/store.py")
    assert not has_one_line_docstrings("memscore/estimators/lira.py")
    for pattern in list_one_line_patterns():
        assert any(fnmatch.fnmatch(str(path.relative_to(ROOT)), p) for p in expand_braces(pattern) for path in SOURCES)
