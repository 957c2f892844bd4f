"""Submitting: what is refused before anything is sent, and in which words. A small server stands in for a dashboard."""

import json
import threading
from enum import Enum
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from cluster import submission
from memscore.submit import main

TOKEN = "ab" * 32
COMMAND = ["python", "-m", "memscore.estimate", "--data", "my data.npz"]
Status = Enum("Status", [(name, name) for name in ("PENDING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED")])


@pytest.fixture(autouse=True)
def plain(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "MEMSCORE_HOME"):
        monkeypatch.setenv(name, "")  # so that what the code sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)


@pytest.fixture
def dashboard():
    """Its address; what it answers can be changed."""

    class Answer(BaseHTTPRequestHandler):
        code, body, token = 200, json.dumps({"ray_version": "2.60.0"}), TOKEN

        def do_GET(self):
            right = self.headers["Authorization"] == f"Bearer {self.token}"
            self.send_response(self.code if right else 401)
            self.end_headers()
            self.wfile.write(self.body.encode())

        def log_message(self, *said):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()  # looks for its end so often
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_address[1]}", says=Answer)
    server.shutdown()
    server.server_close()


class Client:
    """Ray's client, as far as it is used here."""

    def __init__(self, **used):
        self.used, self.sent, self.pieces, self.ends = used, [], ["models 1/2\n", "models 2/2\n"], ["SUCCEEDED"]

    def list_jobs(self):
        jobs = [SimpleNamespace(submission_id=name, status=Status[status]) for name, status in self.used.items()]
        return [*jobs, SimpleNamespace(submission_id=None, status=Status.RUNNING)]  # a driver outside

    def submit_job(self, **job):
        self.sent.append(job)

    def get_job_status(self, name):
        return Status[self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]]

    async def tail_job_logs(self, name):
        for piece in self.pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece


@pytest.fixture
def client(monkeypatch, dashboard, tmp_path):
    found = Client()
    monkeypatch.setattr(submission, "_make_client", lambda address: found)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", dashboard.url)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return found


def said(capsys, arguments):
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_a_command_is_sent_whole_with_the_folder_and_where_stores_are(client, capsys, monkeypatch):
    monkeypatch.setenv("MEMSCORE_HOME", "s3://bank/of/mine")
    code, out, _ = said(capsys, ["--", *COMMAND])
    [job] = client.sent
    assert code == 0
    assert job["entrypoint"] == "python -m memscore.estimate --data 'my data.npz'"
    assert job["runtime_env"]["env_vars"] == {"MEMSCORE_HOME": "s3://bank/of/mine"}
    assert job["runtime_env"]["working_dir"].endswith(".zip")
    assert out.startswith(f"submitted {job['submission_id']} to http://127.0.0.1:")
    assert f"ray job stop {job['submission_id']}" in out
    assert "export RAY_AUTH_MODE=token RAY_ADDRESS=http://127.0.0.1:" in out


def test_ids_count_the_attempts_at_one_command():
    first = submission.make_next_id(COMMAND, {}, "")
    assert first.startswith("memscore-estimate-")
    assert first.endswith("-1")
    stem = first.removesuffix("1")
    used = {first: "FAILED", f"{stem}9": "STOPPED", f"{stem}x": "RUNNING", "other-1": "RUNNING"}
    assert submission.make_next_id(COMMAND, used, "") == f"{stem}10"
    assert submission.make_next_id([*COMMAND, "--seed", "1"], used, "").removesuffix("1") != stem
    assert submission.make_next_id(["./train.sh"], {}, "").startswith("train-sh-")


@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_a_command_that_runs_already_is_not_sent_again(client, capsys, status):
    name = submission.make_next_id(COMMAND, {}, "")
    client.used = {name: status}
    code, _, err = said(capsys, ["--", *COMMAND])
    assert (code, client.sent) == (2, [])
    assert err.startswith(
        f"error: the same command is {status} already as {name}; follow it with `export RAY_AUTH_MODE"
    )
    assert said(capsys, ["--id", "beside", "--", *COMMAND])[0] == 0


def test_an_id_that_was_used_is_refused_with_its_status_and_the_ways_on(client, capsys):
    client.used = {"mine": "FAILED"}
    code, _, err = said(capsys, ["--id", "mine", "--", *COMMAND])
    assert (code, client.sent) == (2, [])
    assert err.startswith("error: the submission id mine was used before, and its job has FAILED; see it with")
    assert "ray job logs mine`, or choose another --id" in err


def test_an_id_that_is_taken_meanwhile_is_refused_too(client, capsys, monkeypatch):
    def taken(**job):
        raise RuntimeError(f"Request failed: Job with submission_id {job['submission_id']} already exists.")

    monkeypatch.setattr(client, "submit_job", taken)
    code, _, err = said(capsys, ["--id", "mine", "--", *COMMAND])
    assert code == 2
    assert err.startswith("error: the submission id mine was taken a moment ago; choose another --id")


def test_a_cluster_that_has_just_begun_is_asked_again(client, capsys, monkeypatch):
    """Ray answers 500 until an agent is up; any other refusal is handed on at once."""
    answers = ["No available agent to submit job, please try again later.", "No available agent to submit job"]

    def begun(**job):
        if answers:
            raise RuntimeError(f"Request failed with status code 500: {answers.pop()}")
        client.sent.append(job)

    monkeypatch.setattr(client, "submit_job", begun)
    monkeypatch.setattr(submission, "POLL_S", 0.0)
    assert said(capsys, ["--", *COMMAND])[0] == 0
    assert len(client.sent) == 1
    answers.append("no space left")
    code, _, err = said(capsys, ["--", *COMMAND])
    assert (code, err) == (2, "error: Request failed with status code 500: no space left\n")


def test_a_folder_that_is_too_large_is_refused_before_anything_is_sent(client, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(submission, "pack", partial(submission.pack, limit_bytes=100))
    (tmp_path / "work" / "data").mkdir()
    (tmp_path / "work" / "data" / "x").write_bytes(bytes(range(256)) * 10)
    code, _, err = said(capsys, ["--", *COMMAND])
    assert (code, client.sent) == (2, [])
    assert "is too large to go along with a job" in err
    assert ".rayignore" in err


@pytest.mark.parametrize(("end", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("STOPPED", 1)])
def test_waiting_prints_the_log_and_ends_as_the_job_does(client, capsys, monkeypatch, end, code):
    monkeypatch.setattr(submission, "POLL_S", 0.01)
    client.ends = ["RUNNING", "RUNNING", end]
    found, out, _ = said(capsys, ["--wait", "--id", "mine", "--", *COMMAND])
    assert found == code
    assert out.endswith(f"models 1/2\nmodels 2/2\nmine: {end}\n")


def test_ctrl_c_leaves_the_job_running_and_says_how_to_follow_and_stop_it(client, capsys):
    client.pieces = ["models 1/2\n", KeyboardInterrupt()]
    code, out, err = said(capsys, ["--wait", "--id", "mine", "--", *COMMAND])
    assert code == 130
    assert out.endswith("models 1/2\n")
    assert "no longer followed; mine goes on" in err
    assert "ray job logs -f mine" in err
    assert "ray job stop mine" in err


def test_a_lost_dashboard_is_not_a_lost_job(client, capsys):
    client.pieces = ["models 1/2\n", ConnectionResetError("gone")]
    code, _, err = said(capsys, ["--wait", "--id", "mine", "--", *COMMAND])
    assert code == 2
    assert "was lost (gone); the job goes on: export RAY_AUTH_MODE=token RAY_ADDRESS=http" in err
    assert err.endswith("ray job logs -f mine\n")


def test_a_wrong_token_no_token_and_no_dashboard_are_a_line_each(dashboard, monkeypatch):
    submission.require_dashboard(dashboard.url)
    dashboard.says.token = "other"
    with pytest.raises(ConnectionError, match=r"refuses the token; RAY_AUTH_TOKEN or ~/.ray/auth_token must hold"):
        submission.require_dashboard(dashboard.url)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    with pytest.raises(ConnectionError, match="wants a token; RAY_AUTH_TOKEN or"):
        submission.require_dashboard(dashboard.url)
    with pytest.raises(ConnectionError, match=r"no Ray dashboard answers at .*refused.* open a tunnel: ssh -L"):
        submission.require_dashboard("http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("code", "body", "words"),
    [
        (404, "{}", "answers 404, as no Ray dashboard does"),
        (200, "<html>", "no Ray dashboard answers at"),
        (200, '{"version": 1}', "answers, but not as a Ray dashboard does"),
        (200, "[1]", "answers, but not as a Ray dashboard does"),
    ],
)
def test_another_server_is_told_from_a_dashboard(dashboard, code, body, words):
    dashboard.says.code, dashboard.says.body = code, body
    with pytest.raises(ConnectionError, match=words):
        submission.require_dashboard(dashboard.url)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:6379", "auto", "ray://head:10001", "http://", "http://head:8265/#/jobs"]
)
def test_what_is_no_dashboard_s_address_is_refused(address, monkeypatch):
    with pytest.raises(ValueError, match=r"--address .* is no dashboard; jobs go to its http address"):
        submission.resolve_dashboard(address)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ValueError, match=r"RAY_ADDRESS .* is no dashboard"):
        submission.resolve_dashboard(None)


def test_the_wish_goes_before_the_environment(monkeypatch):
    assert submission.resolve_dashboard(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "http://b:1/")
    assert submission.resolve_dashboard(None) == "http://b:1"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://c")
    assert submission.resolve_dashboard(None) == "https://c"
    assert submission.resolve_dashboard("http://a:1") == "http://a:1"


@pytest.mark.parametrize(
    ("home", "words"),
    [
        ("s3://key:word@bucket/x", "has credentials in it"),
        ("s3://bucket?access_key=a&secret_key=b", "has credentials in it"),
        ("banks", "is a relative path"),
    ],
)
def test_a_home_that_must_not_or_cannot_go_along_is_refused(monkeypatch, home, words):
    monkeypatch.setenv("MEMSCORE_HOME", home)
    with pytest.raises(ValueError, match=words) as caught:
        submission.select_environment()
    assert "word@" not in str(caught.value)


def test_without_a_command_nothing_is_sent(capsys):
    for arguments in ([], ["--wait"], ["--id", "mine", "--"]):
        code, _, err = said(capsys, arguments)
        assert code == 2
        assert err.startswith("error: there is no command; write it after --")


@pytest.mark.parametrize("wish", ["", "a b/c", "-x", "x" * 101])
def test_what_is_no_submission_id_is_refused_before_ray_sees_it(wish):
    with pytest.raises(ValueError, match="is no submission id: at most 100 letters, digits"):
        submission.require_unused_id(wish, {}, "http://127.0.0.1:8265")
