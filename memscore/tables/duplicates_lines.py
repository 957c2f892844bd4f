"""Lines about exact copies among the images of a bank, and what they mean for its results."""

from collections.abc import Iterator

from rich.console import Console

from memscore.data.duplicates import CopyCounts
from memscore.tables.console import print_line

UNKNOWN = "unknown: the images were not read (imported without --data, or by an earlier version)"
MEANINGS = {
    "train": "scores that leave one example out (memorization, attacks, influence) measure what one copy adds beyond "
    "the others, near 0 if their labels agree, not what the models store of the image",
    "train-validation": "models that were trained on one copy know the other, which RMIA and selection take for unseen",
    "train-test": "models that were trained on one copy know the other, which test accuracy takes for unseen",
    "validation-test": "what is chosen on validation examples has seen these test images",
}
"""Pair of splits -> what copies between them do to results. Copies within validation or test only count twice there."""


def describe_copies(counts: CopyCounts) -> dict[str, str]:
    """Describe the copies of each pair of splits that has any, in a clause."""
    clauses = {}
    for pair, found in counts.items():
        if not found["groups"]:
            continue
        numbers = " and ".join(f"{number} {split}" for split, number in found["examples"].items())
        images, conflicts = _count_images(found["groups"]), found["groups_with_other_labels"]
        what = "each other" if "-" in pair else f"another one there, {images} in all"
        labels = f"; {_count_images(conflicts)} under different labels" if conflicts else ""
        clauses[pair] = f"{numbers} examples are exact copies of {what} (as {' = '.join(found['first'])}{labels})"
    return clauses


def format_copies(counts: CopyCounts | None) -> str:
    """Format on one line what copies there are; also that there are none, or that nothing is known."""
    return UNKNOWN if counts is None else "; ".join(describe_copies(counts).values()) or "none, no two images are equal"


def explain_copies(counts: CopyCounts | None) -> Iterator[str]:
    """Yield what copies there are and mean, a line for each pair of splits that has any."""
    clauses = {"": UNKNOWN} if counts is None else describe_copies(counts)
    for pair, clause in clauses.items():
        yield f"{clause}: {MEANINGS[pair]}" if pair in MEANINGS else clause


def print_copies(console: Console, counts: CopyCounts | None) -> None:
    """Print a line for each pair of splits with exact copies, or that the images are unknown."""
    for line in explain_copies(counts):
        print_line(console, f"[yellow]copies[/] {line}", markup=True)


def _count_images(number: int) -> str:
    return f"{number} image{'' if number == 1 else 's'}"
