"""Arrays of text, in which every element takes the memory of the longest one."""

from collections.abc import Sequence

import numpy as np

from memscore.reading_limit import require_memory


def make_text_array(texts: Sequence[str], content: str) -> np.ndarray:
    """Make an array of texts such as ids; a single one that is very long would make all of them take its length.

    Args:
        texts: any number.
        content: what they are, for the message.

    Returns:
        str [n].

    Raises:
        ValueError: the array would be larger than the limit.
    """
    longest = max(texts, key=len, default="")
    # NumPy stores text of one length, in 4 bytes a character
    n_bytes = 4 * len(texts) * len(longest)
    require_memory(n_bytes, f"{content}, {len(texts):,} of up to {len(longest):,} characters,", "use shorter ones")
    return np.array(texts, dtype=np.str_)
