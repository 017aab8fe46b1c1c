"""What the receiver keeps in PostgreSQL, and how it gets there."""

from flask.globals import app_ctx

from receiver.database.connections import Connections
from receiver.database.group_commit import GroupCommit
from receiver.database.staging import Staging, Submission

LARGE_SUBMISSION = 100  # ids, above which a submission is committed beside the small ones, which do not wait for it


class Database:
    """The database of one application, as its routes use it."""

    def __init__(self, url: str) -> None:
        """Connect nowhere yet; the database need not be there."""
        self.connections = Connections(url)
        self.staging = Staging(self.connections)
        self._small, self._large = GroupCommit(self.staging.stage), GroupCommit(self.staging.stage)

    def submit(self, submission: Submission) -> int:
        """Return the submission's number after its commit, which it may share with others."""
        commits = self._large if len(submission.coins.accepted) > LARGE_SUBMISSION else self._small
        return commits.submit(submission)


def database() -> Database:
    """Return the database of the application that serves the current request."""
    return app_ctx.app.extensions["database"]  # type: ignore[no-any-return]
