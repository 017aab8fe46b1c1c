"""How much of a month's credit may be spent on answers that are known already."""

from dataclasses import dataclass

LONGEST_MEMORY = 7.0  # days


@dataclass(frozen=True, kw_only=True)
class MeasuredCredit:
    """A month's credit, and what new ids have cost of late.

    Attributes:
        credit: calls of the whole month.
        left_at_midnight: of these, calls that were left when this day began (UTC).
        lookup_calls: calls for new ids in the last seven days, or in as many as are known.
        days_known: how long that is.
        days_left: days of the month that are left, this one included.
        days_in_month: 28 to 31.
    """

    credit: int
    left_at_midnight: int
    lookup_calls: int
    days_known: float
    days_left: int
    days_in_month: int


def reserve_for_new_ids(measured: MeasuredCredit) -> float:
    """Return the calls to keep until the end of the month for ids that nobody has asked for yet.

    As many a day as in the last week; while less than a day is known, half the credit for the days that are left.
    At most what is left.
    """
    if measured.days_known < 1:
        wanted = measured.credit / 2 * measured.days_left / measured.days_in_month
    else:
        wanted = measured.lookup_calls / min(measured.days_known, LONGEST_MEMORY) * measured.days_left
    return min(wanted, measured.left_at_midnight)


def refreshes_of_today(measured: MeasuredCredit) -> int:
    """Return how many calls may refresh answers on this day, pages counted: what the reserve leaves, evenly spread."""
    return int((measured.left_at_midnight - reserve_for_new_ids(measured)) / measured.days_left)
