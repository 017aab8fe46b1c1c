"""Alerts to a chat's webhook, few enough to be read."""

import logging
from contextlib import closing
from datetime import timedelta
from http import HTTPStatus

import urllib3
from psycopg import Connection

from coin_pipeline.transport import NotSentError, create_session, reason_of
from sql import query

QUIET_TIME = timedelta(minutes=10)  # at most one alert in this time for each cause
TIMEOUT = 5.0  # seconds, for the whole of an answer too

LOG = logging.getLogger(__name__)


def send_alert(
    connection: Connection,
    *,
    webhook_url: str,
    cause: str,
    text: str,
    quiet_time: timedelta = QUIET_TIME,
    log: logging.Logger = LOG,
) -> bool:
    """POST `{"text": …}`, which Slack and its likes understand, unless this cause was alerted a short while ago.

    A webhook that cannot be reached is logged and never fails what it reports on; the next alert of this
    cause is then sent.

    Args:
        connection: to `challenge_db`, in autocommit.
        webhook_url: where to.
        cause: what the alert is about, the same for each repetition.
        text: for a person to read.
        quiet_time: in which there is at most one of this cause.
        log: is told why an alert did not arrive.

    Returns:
        Whether the alert was sent.
    """
    claim = {"cause": cause, "quiet_time": quiet_time}
    if connection.execute(query("alerts/claim_alert"), claim).fetchone() is None:
        return False
    has_arrived = False
    try:
        reason = _post(webhook_url, text)
        has_arrived = reason is None
    finally:  # whatever went wrong, it was not sent
        if not has_arrived:
            connection.execute(query("alerts/unclaim_alert"), {"cause": cause})
    if not has_arrived:
        log.warning("The alert of %s did not arrive: %s", cause, reason)
    return has_arrived


def _post(webhook_url: str, text: str) -> str | None:
    """Return why the text did not arrive; None when it did. No reason names the URL, which is a secret."""
    try:
        with closing(create_session(webhook_url, timeout_of_answer=TIMEOUT, connections=1)) as session:
            status = session.post(webhook_url, json={"text": text}, timeout=TIMEOUT, stream=True).status_code
            return None if status < HTTPStatus.MULTIPLE_CHOICES else f"it was answered {status}"
    except NotSentError as error:
        return f"cannot reach the webhook{error.way}: {error.reason}"
    except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
        return f"the webhook did not answer: {reason_of(error)}"
