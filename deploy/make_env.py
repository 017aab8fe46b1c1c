"""Write `.env` for docker compose: `.env.example` with random passwords. An `.env` that is there stays as it is."""

import os
import re
import secrets
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent / ".env.example"


def main() -> None:
    """Write it into the working directory, readable by its owner only."""
    try:
        descriptor = os.open(".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600)
    except FileExistsError:
        print("There is an .env already; it stays as it is.")
        return
    with open(descriptor, "w", encoding="utf-8") as env:
        env.write(
            re.sub(
                r"^(\w+_PASSWORD)=$",
                lambda match: f"{match[1]}={secrets.token_urlsafe(24)}",
                EXAMPLE.read_text(encoding="utf-8"),
                flags=re.MULTILINE,
            )
        )
    print("Wrote .env, with random passwords.")


if __name__ == "__main__":
    main()
