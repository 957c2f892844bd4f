"""Submit from a folder whose .gitignore leaves out the files that the command names: said before the job starts.

No Ray cluster: a local HTTP server answers as Ray's dashboard does.
"""

import http.server
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.cases._support import CaseError, run_case, run_command

COMMANDS = (
    ("mine.npz", ("memscore.estimate", "--data", "./mine.npz")),
    ("mine.py", ("memscore.estimate", "--data", "mine:data")),
    ("ids.txt", ("unlearn.trial", "s3://bucket/bank", "--algorithm", "finetune", "--forget", "ids:ids.txt")),
)
submitted: list[str] = []


class Dashboard(http.server.BaseHTTPRequestHandler):
    """The part of Ray's dashboard that takes jobs."""

    def reply(self, answer: Any, code: int = 200) -> None:
        body = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self) -> None:
        if "version" in self.path:
            self.reply({"version": "4", "ray_version": version("ray"), "ray_commit": "x", "session_name": "s"})
        elif "packages" in self.path:
            self.reply({}, 404)
        else:
            self.reply([])

    def do_PUT(self) -> None:
        self.read_body()
        self.reply({})

    def do_POST(self) -> None:
        job = json.loads(self.read_body())
        submitted.append(job["entrypoint"])
        self.reply({"job_id": job.get("submission_id"), "submission_id": job.get("submission_id")})

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve_dashboard() -> Generator[str, None, None]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dashboard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def check(folder: Path) -> list[str]:
    problems = []
    with serve_dashboard() as address:
        for name in ("first project", "second project"):
            place = folder / name
            place.mkdir()
            (place / "mine.py").write_text("def data():\n    pass\n")
            (place / "mine.npz").write_bytes(b"x")
            (place / "ids.txt").write_text("train/00001\n")
        (folder / "second project" / ".gitignore").write_text("mine.py\n*.npz\nids.txt\n")
        for file, words in COMMANDS:
            submit = ("memscore.submit", "--address", address, "--", "python", "-m", *words)
            submitted.clear()
            control = run_command(folder, *submit, cwd=folder / "first project", RAY_AUTH_MODE="disabled")
            if control.returncode or not submitted:
                raise CaseError(f"{words[-1]} is not submitted though nothing is ignored: {control.output[-300:]}")
            submitted.clear()
            result = run_command(folder, *submit, cwd=folder / "second project", RAY_AUTH_MODE="disabled")
            reason = rf"(?=.*{file})(?=.*ignore)"
            if not result.explains(reason, control):
                end = "is submitted without a word" if submitted else f"ends with {result.output.strip()[-150:]!r}"
                problems.append(f"{words[-1]} is in .gitignore and stays here, and the job {end}")
    return problems


if __name__ == "__main__":
    run_case(check)
