"""Find the files that a submitted command names and that do not go along with it, before anything is sent.

The words of the command are read without knowing its options: a relative path of a file or folder that exists here,
also behind `=` or a `:` as in `--option=FILE`, `ids:FILE` and `FILE:ARRAY`, and the module of `module:function`, of
`-m` and of a script, with the modules beside it that it imports. Absolute paths are read where they are, on every node.
"""

import ast
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path

from cluster.packaging import find_excluding_rule, iterate_files

WRITTEN_BY_THE_JOB = ("--out", "--store")
"""Options whose path is one that the command writes."""


def require_needed_files(command: Sequence[str], folder: Path) -> None:
    """Raise ValueError if a file that the command names exists here and is not sent; name it, the rule and a remedy."""
    folder = folder.absolute()
    if not folder.is_dir():  # pack says so
        return
    sent: set[Path] | None = None
    for word, path in _find_needed_paths(command, folder):
        where = "" if path.name in word else f" (for {word!r})"
        if not path.is_relative_to(folder):
            raise ValueError(
                f"{path}{where} lies outside of {folder}, the folder that is sent with the job; give --working-dir a "
                "folder that has it, or its absolute path if every node sees that"
            )
        sent = {*iterate_files(folder)} if sent is None else sent
        for left_out in _list_left_out(path, sent):
            name = left_out.relative_to(folder).as_posix()
            rule = find_excluding_rule(folder, left_out) or "a rule of .gitignore or .rayignore"
            raise ValueError(
                f"{name}{where} is needed by the command, and {rule} leaves it out of what is sent with the job; take "
                f"that line out or write !{name} below it, or put the file where every node sees it and give its "
                "absolute path"
            )


def _find_needed_paths(command: Sequence[str], folder: Path) -> Generator[tuple[str, Path], None, None]:
    """Yield each word of the command that names a local file, folder or module, and its path."""
    before = ""
    for word in command:
        option, _, value = word.partition("=") if word.startswith("--") and "=" in word else (before, "", word)
        before = word
        if option in WRITTEN_BY_THE_JOB or value.startswith("-") or "://" in value:
            continue
        parts = value.split(":")
        # all of it first: a file's name may have a colon
        for text in dict.fromkeys([value, *([parts[0], ":".join(parts[1:])] if len(parts) > 1 else [])]):
            path = _find_path(text, folder)
            # a plain word that is a store here too, such as digits, is the name of a data set
            if path is not None and not (path / "manifest.json").is_file():
                yield word, path
                if path.suffix == ".py":
                    yield from ((word, module) for module in _find_imported_modules(path, folder))
        if len(parts) == 2 and all(part.isidentifier() for part in parts[0].split(".")):
            module = _find_module(parts[0], folder)
            if module is not None:
                yield word, module
                yield from ((word, imported) for imported in _find_imported_modules(module, folder))
        if option == "-m" and (module := _find_module(value, folder)):
            yield word, module


def _find_path(text: str, folder: Path) -> Path | None:
    """Return the path that a word names here, in the folder that is sent or else in the current one, if it exists."""
    if not text or text in {".", "/"} or Path(text).is_absolute() or "\0" in text:
        return None
    for base in (folder, Path.cwd()):
        path = Path(os.path.normpath(base / text))
        try:
            if path.exists() and path not in (base, *base.parents):
                return path
        except OSError:  # a word that is too long to be a name
            return None
    return None


def _find_module(name: str, folder: Path) -> Path | None:
    """Return the file of a module that lies in the folder."""
    stem = folder.joinpath(*name.split("."))
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)


def _find_imported_modules(path: Path, folder: Path) -> Iterator[Path]:
    """Yield the files in the folder that a module imports, and those that these import."""
    waiting, seen = [path], {path}
    while waiting:
        current = waiting.pop()
        for name in _list_imports(current):
            # beside a script, or from the folder that the command runs in
            for base in (folder, path.parent):
                module = _find_module(name, base)
                if module is not None and module not in seen:
                    seen.add(module)
                    waiting.append(module)
                    yield module


def _list_imports(path: Path) -> Iterable[str]:
    """List the absolute names of modules that a file imports; none of a file that is no Python."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    names: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= dict.fromkeys([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    return names


def _list_left_out(path: Path, sent: set[Path]) -> Iterator[Path]:
    """Yield the file itself, or files of the folder, that are not sent, but hidden ones and caches of Python."""
    if path.is_file():
        if path not in sent:
            yield path
        return
    for parent, folders, files in os.walk(path, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        for name in sorted(files):
            file = Path(parent, name)
            if not name.startswith(".") and not name.endswith(".pyc") and file not in sent:
                yield file
