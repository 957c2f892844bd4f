"""Functions of the user's own, named module:function: import them, hash their source, say where they failed.

The module is looked for where Python looks and in the working directory. Its hash is that of the whole file, so that an
edited function is another one; files that the module imports are no part of it.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from cluster.device_errors import is_broken_device, is_memory_shortage
from cluster.pool import is_fatal

MAX_MESSAGE = 200  # characters of an exception in one line
_hashes: dict[str, tuple[ModuleType, str]] = {}  # by module: the object that was hashed, and its hash


class UserFunctionError(ValueError):
    """A function of the user's failed; the message says where, and needs no name of a class before it."""

    for_user = True


def is_user_function(name: str) -> bool:
    """Return whether a name is module:function, which no built-in name is."""
    return ":" in name


def import_user_object(kind: str, name: str, meaning: str) -> Any:
    """Import the object that module:function names; of one in a class the name is module:Class.function.

    Args:
        kind: what it is for, such as "recipe".
        name: module:function as the user wrote it.
        meaning: what it must be, for the message, such as "a function without arguments that returns a Recipe".

    Returns:
        The object: usually a function.

    Raises:
        ValueError: the name is not module:function, the module cannot be imported, or it has no such name.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*attribute.split("."), *module_name.split("."))):
        raise ValueError(f"{kind} {name!r} is not module:function, as mine:{kind} for {meaning} in mine.py")
    module = _import_module(kind, name, module_name)
    try:
        return attrgetter(attribute)(module)
    except AttributeError:
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module_name]
        raise ValueError(
            f"{kind} {name!r}: {module_name} has no {attribute} (it has {', '.join(own) or 'no function'}); name "
            f"{meaning}"
        ) from None


def import_user_function(kind: str, name: str, meaning: str) -> Callable[..., Any]:
    """Import a function by module:function; see import_user_object. ValueError if it cannot be called."""
    function = import_user_object(kind, name, meaning)
    if not callable(function):
        raise ValueError(f"{kind} {name!r} must be {meaning}, got {type(function).__name__}")
    checked: Callable[..., Any] = function
    return checked


def hash_user_source(kind: str, name: str) -> str:
    """Return the hash of a user's module as this process imported it: SHA-256 of its source file, 64 hex digits.

    Raises:
        ValueError: the module cannot be imported, or has no source file.
    """
    module_name = name.partition(":")[0]
    module = _import_module(kind, name, module_name)
    # By the object: a module that was imported again has been read again.
    if module_name not in _hashes or _hashes[module_name][0] is not module:
        path = inspect.getsourcefile(module) if getattr(module, "__file__", None) else None
        if path is None:
            raise ValueError(
                f"{kind} {name!r}: {module_name} has no source file, so an edited one cannot be distinguished"
            )
        _hashes[module_name] = module, hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return _hashes[module_name][1]


def hash_user_sources(names: Iterable[str]) -> dict[str, str]:
    """Return name -> hash of the source, of those names that are module:function; for what is hashed with them."""
    return {name: hash_user_source("the function", name) for name in sorted(set(names)) if is_user_function(name)}


def require_same_source(kind: str, name: str, recorded: str, owner: str) -> None:
    """Raise ValueError if a user's module is not the one that was recorded; `owner` says where, for the message."""
    if (actual := hash_user_source(kind, name)) != recorded:
        raise ValueError(
            f"{kind} {name}: the source of {name.partition(':')[0]} is not that of {owner}: its sha256 is "
            f"{actual[:12]}, there {recorded[:12]}; restore that file, or start anew with this one"
        )


@contextmanager
def explain_user_error(
    kind: str,
    name: str,
    *,
    remark: str = "",
    error_type: type[ValueError] = UserFunctionError,
    passing: tuple[type[BaseException], ...] = (),
) -> Generator[None, None, None]:
    """Turn whatever a user's function raises within this block into one line with the user's own line.

    `sys.exit` and other exceptions that are no Exception are errors of the function too: they would end the command
    without a word.

    Args:
        kind: what the function is for, such as "recipe".
        name: module:function as the user wrote it.
        remark: what it was called with, for the end of the line.
        error_type: of the error that is raised instead.
        passing: exceptions that are not changed. Nor are Ctrl-C, what stops the run, and errors of a GPU, for which the
            pool has its own remedies.

    Raises:
        UserFunctionError: the function raised; of error_type, if that is another one.
        KeyboardInterrupt: Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except passing:
        raise
    except BaseException as error:
        if is_fatal(error) or is_memory_shortage(error) or is_broken_device(error):
            raise
        line = describe_user_error(kind, name, error)
        raise error_type(f"{line} ({remark})" if remark else line) from error


def describe_user_error(kind: str, name: str, error: BaseException) -> str:
    """Return one line on an exception of a user's function, with the innermost line that is the user's own.

    That is of the named module; where no line of it took part, the innermost of all.
    """
    path = _find_source(name.partition(":")[0])
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    places = [(frame.filename, frame.lineno) for frame in frames]
    # A syntax error is in no frame: it says itself where it is.
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno))
    own = [place for place in places if place[0] == path]
    file, line = (own or places)[-1]
    message = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    # torch lists every signature of an operation; the first words say which one it was.
    message = message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]} ..."
    return f"{kind} {name} fails in line {line} of {Path(file).name}: {type(error).__name__}: {message}".rstrip(": ")


def describe_user_place(name: str, *functions: Any) -> str:
    """Return where the first of these functions that is in the file of module:function is defined.

    Args:
        name: module:function.
        functions: functions, or classes, which have no place.

    Returns:
        Such as "line 3 of mine.py"; empty if none of them is there.
    """
    path = _find_source(name.partition(":")[0])
    for function in functions:
        code = getattr(inspect.unwrap(function), "__code__", None)
        if code is not None and code.co_filename == path:
            return f"line {code.co_firstlineno} of {Path(code.co_filename).name}"
    return ""


def _find_source(module_name: str) -> str | None:
    """Find the file of a module, imported or not; None if there is none."""
    try:
        module = importlib.util.find_spec(module_name)
    except (ImportError, ValueError):
        return None
    return module.origin if module else None


def _import_module(kind: str, name: str, module_name: str) -> ModuleType:
    """Import a user's module; ValueError with the line of the module where its code fails."""
    # `python -m` has the working directory on the path, a console script has not.
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))
    try:
        with explain_user_error(kind, name):
            return importlib.import_module(module_name)
    except ValueError as explained:
        # Where it is another module, which this one imports, the line says so.
        error = explained.__cause__
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(
                f"{kind} {name!r}: there is no module {error.name}; run the command in the folder that holds it, or "
                "name that folder in $PYTHONPATH"
            ) from None
        raise
