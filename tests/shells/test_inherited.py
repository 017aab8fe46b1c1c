"""What the shell has set changes nothing, and what is not the stack's own is left alone."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stack.environment import LOOPBACK, inherited
from stack.home import Home
from tests.shells.conftest import Decoy, assert_works, bystander
from tests.stack.conftest import running_stack


def hostile_variables(home: Path, *, decoy: int) -> dict[str, dict[str, str]]:
    """Return what was seen to do harm, by kind; all of it can be set at once."""
    proxy = f"http://127.0.0.1:{decoy}"
    return {
        "libpq": libpq_variables(decoy),
        "locale": {"LC_ALL": "xx_YY.UTF-8", "LANG": "de_DE@nonsense", "LANGUAGE": "tlh"},
        "HTTP proxies": {
            **dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "grpc_proxy"), proxy),
            "NO_PROXY": "somewhere.example other.example",
        },
        "SOCKS proxies": {
            "ALL_PROXY": f"socks5://127.0.0.1:{decoy}",
            "all_proxy": f"socks5h://127.0.0.1:{decoy}",
        },
        "certificates": {
            "REQUESTS_CA_BUNDLE": "/nonexistent/ca.pem",
            "CURL_CA_BUNDLE": "/nonexistent/ca.pem",
            "SSL_CERT_FILE": "/nonexistent/ca.pem",
            "SSL_CERT_DIR": "/nonexistent",
            "SSLKEYLOGFILE": "/nonexistent/keys",
        },
        "metrics": {"PROMETHEUS_MULTIPROC_DIR": "/nonexistent/metrics", "prometheus_multiproc_dir": ""},
        "Python": {
            "PYTHONHOME": "/nonexistent",
            "PYTHONPATH": str(home.with_name("modules")),
            "PYTHONWARNINGS": "error",
            "PYTHONOPTIMIZE": "2",
            "PYTHONUTF8": "0",
            "PYTHONIOENCODING": "ascii",
            "PYTHONSAFEPATH": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        "Dagster": {
            "DAGSTER_HOME": str(home / "dagster"),
            "DAGSTER_GRPC_PORT": "1",
            "DAGSTER_WEBSERVER_READ_ONLY": "true",
            "DAGSTER_WEBSERVER_PATH_PREFIX": "/elsewhere",
            "DAGSTER_POSTGRES_DB": "nonsense",
        },
        "another stack": {"COINS_STACK": str(home), "PGSERVER_POSTGRES_VERSION": "16"},
        "servers": {
            "FLASK_DEBUG": "1",
            "FLASK_APP": "nonsense",
            "WERKZEUG_SERVER_FD": "0",
            "WERKZEUG_RUN_MAIN": "true",
            "GRANIAN_PORT": "1",
            "WEB_CONCURRENCY": "2",
        },
        "gRPC": {"GRPC_POLL_STRATEGY": "nonsense", "GRPC_VERBOSITY": "debug"},
        "settings in another case": {
            "database_url": f"postgresql://127.0.0.1:{decoy}/elsewhere",
            "Receiver_Port": "1",
        },
        "directories": {
            "TMPDIR": str(home / ("long" * 30)),
            "HOME": str(home.with_name("modules")),
            "NETRC": str(home / "netrc"),
            "XDG_RUNTIME_DIR": "/nonexistent",
            "XDG_CONFIG_HOME": "/nonexistent",
            "CDPATH": "/",
        },
        "terminal": {"TERM": "nonsense", "COLUMNS": "1", "LINES": "nonsense", "FORCE_COLOR": "1"},
        "the rest": {
            "TZ": "Nonsense/Nowhere",
            "USER": "",
            "VIRTUAL_ENV": "/nonexistent",
            "CONDA_PREFIX": "/nonexistent",
            "MALLOC_ARENA_MAX": "1",
            "SQLALCHEMY_WARN_20": "1",
            "MAKEFLAGS": "-j8",
            "POSIXLY_CORRECT": "1",
        },
    }


def libpq_variables(decoy: int) -> dict[str, str]:
    return {
        "PGHOST": "127.0.0.1",
        "PGHOSTADDR": "127.0.0.1",
        "PGPORT": str(decoy),
        "PGDATABASE": "elsewhere",
        "PGUSER": "somebody",
        "PGPASSWORD": "secret",
        "PGPASSFILE": "/nonexistent",
        "PGSERVICE": "nonsense",
        "PGSERVICEFILE": "/nonexistent",
        "PGSYSCONFDIR": "/nonexistent",
        "PGOPTIONS": "-c search_path=nowhere -c default_transaction_read_only=on",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/nonexistent",
        "PGSSLNEGOTIATION": "direct",
        "PGREQUIREAUTH": "scram-sha-256",
        "PGCHANNELBINDING": "require",
        "PGGSSENCMODE": "require",
        "PGTARGETSESSIONATTRS": "standby",
        "PGLOADBALANCEHOSTS": "nonsense",
        "PGMINPROTOCOLVERSION": "nonsense",
        "PGCONNECT_TIMEOUT": "nonsense",
        "PGCLIENTENCODING": "LATIN1",
        "PGDATESTYLE": "German",
        "PGTZ": "Nonsense/Nowhere",
        "PGGEQO": "nonsense",
        "PGAPPNAME": "x" * 100,
        "PGDATA": "/nonexistent",
        "PG_COLOR": "always",
    }


def make_shadowing_modules(home: Path) -> Path:
    """Make modules that are called like ours and like those that ours import."""
    directory = home.with_name("modules")
    directory.mkdir()
    for name in ("click", "psycopg", "requests", "receiver", "sql", "stack"):
        (directory / f"{name}.py").write_text("raise RuntimeError('not the module that was meant')")
    (directory / ".pgpass").touch(mode=0o644)  # libpq warns of it
    return directory


def test_a_shell_that_has_everything_wrong_set(private_directory: Path, decoy: Decoy) -> None:
    home = Home(private_directory.resolve() / ("x" * 200))
    variables: dict[str, str] = {}
    for kind in hostile_variables(home.path, decoy=decoy.port).values():
        variables |= kind
    modules = make_shadowing_modules(home.path)
    modes = {directory: directory.stat().st_mode for directory in home.path.parents}
    with (
        bystander(DAGSTER_HOME=str(home.dagster_home)),
        bystander(COINS_STACK="/somewhere/else"),
        running_stack(home, "--standin", environment=variables, before=lambda: os.chdir(modules)) as stack,
    ):
        assert_works(stack, environment=variables)
        assert decoy.callers == []
    assert {directory: directory.stat().st_mode for directory in home.path.parents} == modes


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_what_the_user_keeps_away_from_a_proxy_stays_away(name: str) -> None:
    proxies = {"http_proxy": "http://proxy.example", "HTTPS_PROXY": "http://proxy.example"}
    some = inherited({**proxies, name: "one.example two.example,three.example"})
    assert some["no_proxy"] == some["NO_PROXY"] == ",".join(["one.example", "two.example", "three.example", *LOOPBACK])
    assert proxies.items() <= some.items()
    every = inherited({**proxies, name: "one.example, *"})
    assert not proxies.keys() & every.keys()


def test_what_does_no_harm_is_passed_on(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    harmless = {
        "LANG": "C",
        "REQUESTS_CA_BUNDLE": str(bundle),
        "SSL_CERT_DIR": f"/nonexistent:{tmp_path}",
        "TMPDIR": "/tmp",
        "COINGECKO_API_KEY": "key",
        "DAGSTER_UI_PORT": "3001",
        "PAGER": "less",
        "PATH": os.environ["PATH"],
    }
    assert harmless.items() <= inherited(harmless).items()


def test_a_start_does_not_end_what_only_looks_like_its_own(tmp_path: Path) -> None:
    """A shell whose user looks into a problem has copied the variables of a process that was left."""
    program = "import os, sys; from pathlib import Path; from stack.supervisor import end_processes_of;"
    program += "end_processes_of(Path(sys.argv[1])); print('alive')"
    mark = {"COINS_STACK": str(tmp_path)}
    shell = f"{shlex.join([sys.executable, '-c', program, str(tmp_path)])} && echo shell alive"
    left = subprocess.Popen(["sleep", "600"], env=mark, start_new_session=True)
    with bystander(COINS_STACK=f"{tmp_path}-other"):
        ended = subprocess.run(
            ["/bin/sh", "-c", shell], env={**os.environ, **mark}, capture_output=True, text=True, check=True
        )
    assert ended.stdout == "alive\nshell alive\n"
    assert left.wait(5) == -signal.SIGKILL
