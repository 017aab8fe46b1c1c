"""docker-compose.yml and the Dockerfile as data: what docker compose would run, without an engine.

`docker-compose config` is the real one, so that names, types, interpolation and merging are as they will be.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
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
    assert result.returncode == 0, result.stderr
    services: dict[str, dict[str, Any]] = json.loads(result.stdout)["services"]
    return services


@dataclass(kw_only=True)
class Image:
    """What a target of the Dockerfile ends as.

    Attributes:
        environment: set by ENV.
        entrypoint: in exec form.
        command: CMD in exec form.
        user: that programs run as.
        workdir: that they start in.
        copies: (source, absolute destination) of what is copied from the project.
    """

    environment: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    user: str = "root"
    workdir: str = "/"
    copies: list[tuple[str, str]] = field(default_factory=list)

    def copy_into(self, root: Path) -> None:
        """Copy what the image holds of the project, with `root` in the place of `/`."""
        for source, destination in self.copies:
            target = root / destination.lstrip("/")
            if (PROJECT / source).is_dir():
                shutil.copytree(PROJECT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(PROJECT / source, target)


def read_images() -> dict[str, Image]:
    """Return the stages of the Dockerfile by name."""
    images: dict[str, Image] = {}
    image = Image()
    text = re.sub(r"\\\n", " ", (PROJECT / "Dockerfile").read_text())
    for line in text.splitlines():
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            parent, name = rest.split(" AS ")
            inherited = images.get(parent, Image())
            image = Image(
                **{
                    **vars(inherited),
                    "copies": list(inherited.copies),
                    "environment": dict(inherited.environment),
                }
            )
            images[name] = image
        elif instruction == "ENV":
            image.environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif instruction == "ENTRYPOINT":
            image.entrypoint = json.loads(rest)
        elif instruction == "CMD":
            image.command = json.loads(rest)
        elif instruction == "USER":
            image.user = rest
        elif instruction == "WORKDIR":
            image.workdir = rest
        elif instruction == "COPY" and not rest.startswith("--from"):
            source, destination = rest.split()
            into_directory = destination in (".", "./") or destination.endswith("/")
            target = os.path.normpath(Path(image.workdir, destination))
            image.copies.append((source, f"{target}/{Path(source).name}" if into_directory else target))
    return images
