"""The one way in which the stack fails."""


class StackError(Exception):
    """Something that a user can mend; its text is one clear line, and log lines after it where they help."""
