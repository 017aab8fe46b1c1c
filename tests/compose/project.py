"""docker-compose.yml as docker compose resolves it: the real program, which needs no engine for that."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent.parent
PROGRAMS = Path(sys.executable).parent


def run_compose_config(*, env_file: Path, settings: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Ask docker compose what it makes of docker-compose.yml with all profiles."""
    command = [str(PROGRAMS / "docker-compose"), "--profile=*", f"--env-file={env_file}", "config", "--format=json"]
    return subprocess.run(
        command,
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "HOME": "/nowhere", **(settings or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def services_of(env_file: Path, **settings: str) -> dict[str, dict[str, Any]]:
    """Return every service as docker compose resolves it."""
    result = run_compose_config(env_file=env_file, settings=settings)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr  # nor any warning
    services: dict[str, dict[str, Any]] = json.loads(result.stdout)["services"]
    return services
