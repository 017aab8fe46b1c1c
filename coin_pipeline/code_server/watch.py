"""The code server watches itself: one that is deaf ends, so that whatever supervises it starts it again."""

import logging
import os
import time

from coin_pipeline.code_server.probe import answers

ASK_EVERY = 1.0  # seconds
ANSWER_WITHIN = 4.0  # seconds
MOST_MISSED = 4  # in a row, so 20 s without an answer; a machine that stood still for a minute misses one

log = logging.getLogger("dagster.code_server")


def end_when_deaf(address: str) -> None:
    """Ask the server for what needs the lock of all executions, for ever; end the process when it does not answer.

    Args:
        address: `host:port` of the server, which need not listen yet.
    """
    has_answered, missed = False, 0
    while missed < MOST_MISSED:
        time.sleep(ASK_EVERY)
        if answers(address, timeout=ANSWER_WITHIN):
            has_answered, missed = True, 0
        elif has_answered:
            missed += 1
    log.critical("The code server has not answered %d times in a row, and ends to be started again", missed)
    os._exit(1)
