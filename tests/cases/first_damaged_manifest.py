"""A truncated manifest.json: the error gives advice, and following it leads back to the same bank.

Beside it: status names the file of a truncated score.
"""

import hashlib
import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq

from tests.cases._support import CaseError, CommandResult, require_success, run_case, run_command

COMMAND = re.compile(r"`(?:python -m )?((?:memscore|unlearn)[. ][^`]+)`")


def check(folder: Path) -> list[str]:
    bank = folder / "bank"
    words = (
        "memscore.estimate", "--design", "exact", "--block", "8", "--models", "16", "--train-limit", "300",
        "--originals", "1", "--pool", "serial", "--store", str(bank),
    )  # fmt: skip
    require_success(run_command(folder, *words))
    return check_status(folder, bank) + check_manifest(folder, bank, words)


def check_status(folder: Path, bank: Path) -> list[str]:
    score = bank / "scores/memorization_k0.500.parquet"
    whole = score.read_bytes()
    score.write_bytes(whole[: len(whole) // 2])
    page = require_success(run_command(folder, "memscore.status", str(bank))).stdout
    score.write_bytes(whole)
    lines = [line for line in page.splitlines() if line.startswith("problem")]
    if any(score.stem in line for line in lines):
        return []
    return [f"status of a truncated score does not name its file: {lines[:1]}"]


def check_manifest(folder: Path, bank: Path, words: tuple[str, ...]) -> list[str]:
    before, shards = pq.read_table(bank / "scores.parquet"), hash_shards(bank)
    manifest = bank / "manifest.json"
    content = manifest.read_bytes()
    manifest.write_bytes(content[: len(content) // 2])
    result = run_command(folder, *words)
    if result.refusal:
        if "manifest" not in result.refusal:
            raise CaseError(f"refused for another reason: {result.refusal}")
        if problem := follow_advice(folder, manifest, result):
            return [problem]
        result = run_command(folder, *words)
    if result.returncode:
        return [f"after a damaged manifest and its advice the estimate ends with {result.output[-200:]!r}"]
    if hash_shards(bank) != shards or not pq.read_table(bank / "scores.parquet").equals(before):
        return ["after the advice was followed, shards or scores are other ones"]
    return []


def follow_advice(folder: Path, manifest: Path, refused: CommandResult) -> str:
    """Do what the error says: run the commands that it names, or delete the file. What is wrong with it, or ""."""
    commands = COMMAND.findall(refused.refusal.replace("FOLDER", str(folder)))
    if not commands and "delete it" not in refused.refusal:
        return f"the error of a damaged manifest names no way to go on: {refused.refusal!r}"
    if "delete it" in refused.refusal:
        manifest.unlink()
    for command in commands:
        result = run_command(folder, *shlex.split(command))
        if result.refusal or "Traceback" in result.output:  # verify ends with 1 where it has set a file aside
            return f"the advice {command!r} ends with {result.output[-200:]!r}"
    return ""


def hash_shards(bank: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (bank / "shards").glob("*.parquet")}


if __name__ == "__main__":
    run_case(check)
