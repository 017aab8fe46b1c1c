"""Retries of failed steps: not of those that somebody ended."""

import sys

import dagster as dg


class RetryUnlessInterrupted(dg.RetryPolicy):
    """A retry policy that lets a run end which is terminated.

    Dagster retries a step that has a policy also when it was interrupted, by somebody who terminates the run or by
    SIGTERM, and asks the policy for the delay while it handles the interrupt.
    """

    def calculate_delay(self, attempt_num: int) -> float:
        """Return the seconds to wait before the next attempt.

        Raises:
            BaseException: the interrupt that is being handled.
        """
        error = sys.exception()
        while error is not None:  # what an interrupt has cut short may have raised an error of its own
            if not isinstance(error, Exception):
                raise error
            error = error.__context__
        return float(super().calculate_delay(attempt_num))
