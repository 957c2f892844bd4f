"""Settings of Ray Tune, which reads them from environment variables, for the length of a search."""

import logging
import os
from collections.abc import Generator
from contextlib import contextmanager

TUNE_SETTINGS = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's own ends after half a minute, and only on a second Ctrl-C at once
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # else three files an evaluation
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # they are reported as Failures
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints tables even at verbose=0
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a relative path means the same as in a pool
}


@contextmanager
def tune_environment() -> Generator[None, None, None]:
    """Set Tune's environment variables and log level for the length of the block."""
    before = {name: os.environ.get(name) for name in TUNE_SETTINGS}
    logger = logging.getLogger("ray.tune")
    level = logger.level
    os.environ |= TUNE_SETTINGS
    logger.setLevel(logging.CRITICAL)  # its warnings and errors are reported here, with a remedy
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
