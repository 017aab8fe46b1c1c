"""Alerts to a chat's webhook, few enough to be read."""

import logging
from datetime import timedelta

import requests
from psycopg import Connection

from sql import query

QUIET_TIME = timedelta(minutes=10)  # at most one alert in this time for each cause
TIMEOUT = 5.0  # seconds

log = logging.getLogger(__name__)


def send_alert(connection: Connection, *, webhook_url: str, cause: str, text: str) -> bool:
    """POST `{"text": …}`, which Slack and its likes understand, unless this cause was alerted a short while ago.

    A webhook that cannot be reached is logged and never fails what it reports on; the next alert of this
    cause is then sent.

    Args:
        connection: to `challenge_db`, in autocommit.
        webhook_url: where to.
        cause: what the alert is about, the same for each repetition.
        text: for a person to read.

    Returns:
        Whether the alert was sent.
    """
    claim = {"cause": cause, "quiet_time": QUIET_TIME}
    if connection.execute(query("alerts/claim_alert"), claim).fetchone() is None:
        return False
    try:
        requests.post(webhook_url, json={"text": text}, timeout=TIMEOUT).raise_for_status()
    except requests.RequestException as error:
        # The error names the URL, and a webhook's URL is a secret.
        log.warning("the alert of %s did not arrive: %s", cause, type(error).__name__)
        connection.execute(query("alerts/unclaim_alert"), {"cause": cause})
        return False
    return True
