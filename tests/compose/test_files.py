"""docker-compose.yml, the Dockerfile and .env.example, as docker compose and a linter see them."""

import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coin_pipeline.settings import PipelineSettings
from receiver.settings import ReceiverSettings
from tests.compose.project import PROGRAMS, PROJECT, run_compose_config, services_of

ONE_SHOT = "migrate"


def make_env(directory: Path) -> Path:
    subprocess.run([sys.executable, PROJECT / "deploy" / "make_env.py"], cwd=directory, check=True)
    return directory / ".env"


@pytest.fixture(scope="module")
def env_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_env(tmp_path_factory.mktemp("env"))


@pytest.fixture(scope="module")
def services(env_file: Path) -> dict[str, dict[str, Any]]:
    return services_of(env_file)


def passwords_in(env_file: Path) -> dict[str, str]:
    return dict(re.findall(r"^(\w+_PASSWORD)=(.*)$", env_file.read_text(), flags=re.MULTILINE))


def test_make_env_makes_passwords_for_its_owner_only_and_never_overwrites(tmp_path: Path) -> None:
    env_file = make_env(tmp_path)
    passwords = passwords_in(env_file)
    assert len(passwords) == 5
    assert len(set(passwords.values())) == 5
    assert all(re.fullmatch(r"[\w-]{32}", password) for password in passwords.values())
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
    before = env_file.read_text()
    make_env(tmp_path)
    assert env_file.read_text() == before


def test_each_missing_password_stops_compose_with_what_to_do(env_file: Path, tmp_path: Path) -> None:
    for name, password in passwords_in(env_file).items():
        without = tmp_path / name
        without.write_text(env_file.read_text().replace(f"{name}={password}", f"{name}="))
        result = run_compose_config(env_file=without)
        assert result.returncode != 0
        assert f"required variable {name} is missing a value: run make env" in result.stderr


def test_a_checkout_of_git_for_windows_has_no_other_line_ends(tmp_path: Path) -> None:
    if not (PROJECT / ".git").exists():
        pytest.skip("this is no checkout")
    directory = str(tmp_path)
    clone = ["git", "clone", "--quiet", "--depth=1", "--config=core.autocrlf=true", f"file://{PROJECT}", directory]
    subprocess.run(clone, check=True)
    attributes = ["git", "-C", directory, "ls-files", "--eol"]
    listed = subprocess.run(attributes, capture_output=True, text=True, check=True).stdout.splitlines()
    assert listed
    assert [line for line in listed if "w/crlf" in line or "w/mixed" in line] == []


def test_the_dockerfile_passes_its_linter() -> None:
    result = subprocess.run(
        [PROGRAMS / "hadolint", "--failure-threshold=info", PROJECT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout


def test_a_mistake_in_either_file_is_found(env_file: Path, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text((PROJECT / "Dockerfile").read_text().replace("WORKDIR /app", "WORKDIR app"))
    linted = subprocess.run([PROGRAMS / "hadolint", tmp_path / "Dockerfile"], capture_output=True, check=False)
    assert linted.returncode != 0
    compose = (PROJECT / "docker-compose.yml").read_text().replace("depends_on:", "depends_upon:", 1)
    (tmp_path / "docker-compose.yml").write_text(compose)
    configured = subprocess.run(
        [PROGRAMS / "docker-compose", f"--env-file={env_file}", "config", "--quiet"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert configured.returncode != 0


def test_every_service_is_restarted_limited_and_checked(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {
        *("db", "migrate", "receiver", "code-location", "daemon", "webserver"),
        *("redis", "standin"),
    }
    for name, service in services.items():
        assert service["restart"] == ("no" if name == ONE_SHOT else "unless-stopped"), name
        assert int(service["mem_limit"]) >= 2**27, name
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if name != ONE_SHOT:
            assert "healthcheck" in service, name
            assert "stop_grace_period" in service, name


def test_services_start_in_the_order_of_their_needs(services: dict[str, dict[str, Any]]) -> None:
    needs = {
        name: {need: how["condition"].removeprefix("service_") for need, how in service.get("depends_on", {}).items()}
        for name, service in services.items()
    }
    assert needs == {
        "db": {},
        "migrate": {"db": "healthy"},
        "receiver": {"migrate": "completed_successfully"},
        "code-location": {"migrate": "completed_successfully"},
        "daemon": {"code-location": "healthy"},
        "webserver": {"code-location": "healthy"},
        "redis": {},
        "standin": {},
    }
    profiles = {name: service["profiles"] for name, service in services.items() if "profiles" in service}
    assert profiles == {"redis": ["redis"], "standin": ["demo"]}


def test_images_that_are_built_are_of_one_project_only(env_file: Path) -> None:
    def built(project: str) -> set[str]:
        services = services_of(env_file, COMPOSE_PROJECT_NAME=project).values()
        return {service["image"] for service in services if "build" in service}

    assert built("one") == {"one-receiver", "one-pipeline", "one-standin"}
    assert built("one").isdisjoint(built("other"))


def test_env_is_read_as_an_editor_on_windows_writes_it(env_file: Path, tmp_path: Path) -> None:
    windows = tmp_path / ".env"
    windows.write_text(f"\ufeff{env_file.read_text()}", encoding="utf-8", newline="\r\n")
    assert services_of(windows) == services_of(env_file)


def test_only_receiver_and_ui_are_published_and_on_loopback_unless_the_user_says_otherwise(env_file: Path) -> None:
    def published(**settings: str) -> dict[str, list[tuple[str, str]]]:
        return {
            name: [(port.get("host_ip", ""), port["published"]) for port in service["ports"]]
            for name, service in services_of(env_file, **settings).items()
            if "ports" in service
        }

    assert published() == {"receiver": [("127.0.0.1", "5004")], "webserver": [("127.0.0.1", "3000")]}
    assert published(RECEIVER_PUBLISH="0.0.0.0:80")["receiver"] == [("0.0.0.0", "80")]
    assert published(RECEIVER_PUBLISH="127.0.0.1:5004-5006")["receiver"] == [("127.0.0.1", "5004-5006")]


def test_the_database_is_kept_where_postgres_18_keeps_it(services: dict[str, dict[str, Any]]) -> None:
    assert services["db"]["image"] == "postgres:18"
    assert [(volume["type"], volume["target"]) for volume in services["db"]["volumes"]] == [
        ("volume", "/var/lib/postgresql")
    ]


def test_each_service_knows_its_own_password_and_no_other(services: dict[str, dict[str, Any]], env_file: Path) -> None:
    known = {
        name: {
            variable.split("_")[0].lower()
            for variable, password in passwords_in(env_file).items()
            if password in str(service.get("environment"))
        }
        for name, service in services.items()
    }
    assert known == {
        "db": {"postgres"},
        "migrate": {"postgres", "receiver", "pipeline", "reader", "dagster"},
        "receiver": {"receiver"},
        "code-location": {"pipeline", "dagster"},
        "daemon": {"dagster"},
        "webserver": {"dagster"},
        "redis": set(),
        "standin": set(),
    }


@pytest.mark.parametrize(("service", "settings"), [("receiver", ReceiverSettings), ("code-location", PipelineSettings)])
def test_every_setting_reaches_its_service_and_is_listed(
    services: dict[str, dict[str, Any]], service: str, settings: type[ReceiverSettings | PipelineSettings]
) -> None:
    names = {name.upper() for name in settings.model_fields}
    assert names <= set(services[service]["environment"])
    listed = set(re.findall(r"^(?:# )?([A-Z_]+)=", (PROJECT / ".env.example").read_text(), flags=re.MULTILINE))
    assert names <= listed


def test_compose_reads_no_variable_that_the_example_does_not_list() -> None:
    listed = set(re.findall(r"^(?:# )?([A-Z_]+)=", (PROJECT / ".env.example").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\$\{([A-Z_]+)", (PROJECT / "docker-compose.yml").read_text())) <= listed
