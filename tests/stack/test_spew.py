"""coin-spewer in Python: the bytes on the wire, the mix of tasks, and the pace."""

import random
import socket
import threading
from itertools import islice

import pytest
from rich.console import Console

from stack.spew import Reply, SpewReport, Task, spew, tasks_of

IDS = [f"coin-number-{number:03}" for number in range(100)]
QUIET = Console(quiet=True)


def capture_one_request(task: Task) -> bytes:
    """Send a task to a socket, and return every byte that came."""
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while not received.endswith(task.body):
                    received.extend(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}/coins"
        report = spew(endpoint, tasks=iter([task]), count=1, delay=0, console=QUIET)
        thread.join()
    assert [reply.status for reply in report.replies] == ["202"]
    return bytes(received)


@pytest.mark.parametrize(
    ("as_json", "content_type", "body"),
    [
        (True, "application/json", b'{"coins": ["bitcoin", "boringdao-[old]"]}'),
        (False, "text/csv", b"coins\nbitcoin\nboringdao-[old]"),
    ],
)
def test_a_request_is_what_the_rust_client_sends(*, as_json: bool, content_type: str, body: bytes) -> None:
    request = capture_one_request(Task(coin_ids=["bitcoin", "boringdao-[old]"], as_json=as_json))
    head, sent = request.split(b"\r\n\r\n")
    request_line, *headers = head.decode().lower().split("\r\n")
    assert request_line == "post /coins http/1.1"
    names = {header.split(":")[0]: header.split(": ")[1] for header in headers}
    assert set(names) == {"host", "accept", "content-type", "content-length"}
    assert names["accept"] == "*/*"
    assert names["content-type"] == content_type
    assert sent == body


def test_half_the_tasks_are_json_and_half_have_one_shuffled_id() -> None:
    tasks = list(islice(tasks_of(IDS, size=4, fresh=False, chance=random.Random(1)), 1000))
    wrong = [sum(coin_id not in IDS for coin_id in task.coin_ids) for task in tasks]
    assert set(wrong) == {0, 1}
    assert 400 < sum(wrong) < 600
    assert 400 < sum(task.as_json for task in tasks) < 600


def test_permutations_share_all_but_the_last_id_and_fresh_tasks_share_none() -> None:
    chance = random.Random(1)
    walked = [task.coin_ids for task in islice(tasks_of(IDS, size=4, fresh=False, chance=chance), 90)]
    heads = [tuple(ids[:3]) for ids in walked]
    assert max(heads.count(head) for head in heads) > 10
    fresh = [task.coin_ids for task in islice(tasks_of(IDS, size=4, fresh=True, chance=chance), 25)]
    assert len({coin_id for ids in fresh for coin_id in ids}) == 100


def test_ids_run_out_and_begin_again() -> None:
    tasks = list(islice(tasks_of(IDS[:4], size=4, fresh=False, chance=random.Random(1)), 30))
    assert len(tasks) == 30


def test_an_error_a_late_reply_or_none_is_not_good() -> None:
    def report(*replies: Reply) -> SpewReport:
        return SpewReport(tasks=[], replies=replies)

    assert report(Reply(status="202", seconds=0.3)).is_good
    assert not report(Reply(status="202", seconds=0.3), Reply(status="202", seconds=0.5)).is_good
    assert not report(Reply(status="429", seconds=0.1)).is_good
    assert not report(Reply(status="ConnectionError", seconds=0.1)).is_good
