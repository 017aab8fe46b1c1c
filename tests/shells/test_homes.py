"""Homes that were damaged, moved, taken or put where they cannot be: they work, or one line says what to do."""

import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from stack import system_user
from stack.addresses import free_port
from stack.cluster import remove_cluster
from stack.errors import StackError
from stack.home import Home
from stack.postgres import EmbeddedPostgres, prepare_postgres
from stack.services import postgres_service
from stack.supervisor import Supervisor, end_processes_of
from tests.shells.conftest import AS_ROOT
from tests.stack.conftest import COINS

needs_root = pytest.mark.skipif(not AS_ROOT, reason="PostgreSQL runs as another user for root only")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a database in it."""
    home = tmp_path_factory.mktemp("pristine")
    with Home(home).claim():
        prepare_postgres(home / "postgres")
    return home


@pytest.fixture
def home(pristine: Path, tmp_path: Path) -> Home:
    """A copy of it, as `cp -r` by root makes one: all of it is root's."""
    shutil.copytree(pristine, tmp_path / "home", symlinks=True)
    (tmp_path / "home").chmod(0o711)
    return Home(tmp_path / "home")


def answer_of(postgres: EmbeddedPostgres, statement: str) -> str:
    """Start the server, ask it, and stop it."""
    supervisor = Supervisor(logs=postgres.data.parent, working_directory=postgres.data.parent)
    try:
        supervisor.start(postgres_service(postgres, {}))
        with psycopg.connect(postgres.url("postgres")) as connection:
            return str(connection.execute(statement.encode()).fetchall()[0][0])
    finally:
        supervisor.stop()


def start(home: Home) -> EmbeddedPostgres:
    with home.claim():
        return prepare_postgres(home.postgres_data)


def test_a_copied_home_starts_and_orders_text_as_everywhere(home: Home) -> None:
    order = "SELECT string_agg(id, ' ' ORDER BY id) FROM unnest(ARRAY['b', 'B', 'a', 'é', '-a', '[']) id"
    assert answer_of(start(home), order) == "-a B [ a b é"


@pytest.mark.parametrize("content", [b"", b"\0\0\0\0", b"\xff\xfe", b"garbage\n"])
def test_files_that_a_crash_has_mangled_spoil_nothing(home: Home, content: bytes) -> None:
    for name in ("LAYOUT", "stack.json", "lock", "postgres/postmaster.pid", "postgres/.s.PGSQL.5432.lock"):
        (home.path / name).write_bytes(content)
    with pytest.raises(StackError, match="No stack is running"):
        home.read_state()
    assert start(home).data == home.postgres_data
    assert not (home.path / "postgres/postmaster.pid").exists()


def test_a_server_that_starts_after_a_crash_finds_its_number_taken(home: Home) -> None:
    (home.postgres_data / "postmaster.pid").write_text(f"{os.getpid()}\n{home.postgres_data}\n")
    (home.postgres_data / ".s.PGSQL.5432.lock").write_text(f"{os.getpid()}\n")
    assert answer_of(start(home), "SELECT 42") == "42"


def test_half_a_home_is_made_whole(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    (home.path / "postgres.draft" / "base").mkdir(parents=True)
    home.postgres_data.mkdir()
    home.path.chmod(0o711)
    assert answer_of(start(home), "SELECT 42") == "42"


def test_half_a_database_is_refused(home: Home) -> None:
    (home.postgres_data / "PG_VERSION").write_text("")
    with pytest.raises(StackError, match="is no whole database: move it away"):
        start(home)


def test_a_database_of_a_locale_that_is_not_here_is_refused(home: Home) -> None:
    settings = home.postgres_data / "postgresql.conf"
    settings.write_text(re.sub("^lc_time = .*", "lc_time = 'de_XX.UTF-8'", settings.read_text(), flags=re.MULTILINE))
    with pytest.raises(StackError, match=r"was made under the locale de_XX.UTF-8, which is not installed here"):
        start(home)


def test_what_lies_in_a_home_is_its_users_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        home = Home(tmp_path / "new" / "home")
        start(home)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(each.stat().st_mode) for each in (home.path, home.path.parent)} == {0o711}
    inside = {each.name: stat.S_IMODE(each.stat().st_mode) for each in home.path.iterdir() if each.is_dir()}
    assert inside == {"logs": 0o700, "dagster": 0o700, "postgres": 0o700}


def test_a_server_whose_stack_was_killed_is_ended(home: Home) -> None:
    """As on macOS, where nothing tells a process of its parent's death; there this is how it ends."""
    postgres = start(home)
    server = subprocess.Popen(
        postgres.command,
        user=postgres.system_user.uid if postgres.system_user else None,
        env={"COINS_STACK": str(home.path)},
        cwd="/",
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    while not postgres.is_ready():
        assert server.poll() is None
    with psycopg.connect(postgres.url("postgres")), home.claim():
        end_processes_of(home.path)
        assert server.poll() is None, "PostgreSQL was killed, where it can be stopped"
        reaper = psutil.Process(server.pid)
        prepare_postgres(home.postgres_data)
    assert server.wait(5) == 0
    assert not reaper.is_running()


def test_a_socket_directory_that_is_not_ours_is_not_used(home: Home) -> None:
    home = Home(home.path.rename(home.path.with_name("x" * 100)))
    socket_directory = start(home).socket_directory
    assert socket_directory.parent == Path(tempfile.gettempdir())
    assert stat.S_IMODE(socket_directory.stat().st_mode) == 0o700

    socket_directory.chmod(0o777)
    with pytest.raises(StackError, match="is somebody else's: remove it"):
        start(home)
    socket_directory.rmdir()
    socket_directory.symlink_to(home.path)
    with pytest.raises(StackError, match="is somebody else's: remove it"):
        start(home)
    socket_directory.unlink()


@needs_root
def test_a_database_that_lies_elsewhere_is_missed_when_it_is_gone(private_directory: Path) -> None:
    home = Home(private_directory / "home")
    postgres = start(home)
    assert postgres.data.parent.parent == system_user.ELSEWHERE
    assert f"to remove it: rm -r {postgres.data.parent}" in "\n".join(postgres.notes)
    assert (stat.S_IMODE(postgres.data.stat().st_mode), postgres.data.stat().st_uid) == (
        0o700, pwd.getpwnam(system_user.NAME).pw_uid)  # fmt: skip
    assert start(home).data == postgres.data
    remove_cluster(home.postgres_data)
    with pytest.raises(StackError, match="The database of this home is missing"):
        start(home)
    id_file = home.path / "postgres.id"
    id_file.write_text("../../../root")
    with pytest.raises(StackError, match="holds no id"):
        start(home)
    id_file.unlink()


@needs_root
def test_root_leaves_the_home_of_another_user_alone(home: Home) -> None:
    os.chown(home.path / "LAYOUT", 1234, 1234)
    with pytest.raises(StackError, match="belongs to user 1234: start coins as that user"):
        start(home)


def test_a_user_without_a_name_is_told_what_is_missing(tmp_path: Path) -> None:
    """As in a container that was started with `docker run --user 54321`."""
    nameless = ["unshare", "--user", "--map-user=54321"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*nameless, "true"], check=False, stderr=subprocess.DEVNULL).returncode
    ):
        pytest.skip(f"NOT TESTED: no namespace of users can be made here: {shlex.join(nameless)}")
    started = subprocess.run(
        [*nameless, *COINS, "up", "--home", tmp_path / "home", "--receiver-port", str(free_port())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 1
    assert re.fullmatch(
        "Error: .* PostgreSQL insists on a name for its user, and 54321 has none: .*/etc/passwd\n", started.stderr
    )


@contextmanager
def mounted(directory: Path, *options: str) -> Iterator[Path]:
    """Mount a file system for as long as the block lasts, or skip the test where that cannot be done."""
    directory.mkdir()
    command = ["mount", *options, str(directory)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"NOT TESTED: no file system can be mounted here: {shlex.join(command)}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4m", "tmpfs") as disk:
        with pytest.raises(StackError, match="No space left on device"):
            start(Home(disk / "home"))
        assert list((disk / "home").glob("postgres*")) == []


def test_a_file_system_of_its_own_takes_the_database(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(0o711)
    with mounted(tmp_path / "home" / "postgres", "-t", "tmpfs", "-o", "mode=700", "tmpfs"):
        assert answer_of(start(Home(tmp_path / "home")), "SELECT 42") == "42"


@needs_root
def test_on_a_file_system_without_owners_and_modes_root_keeps_the_database_elsewhere(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(2**26)
    make = shutil.which("mkfs.ntfs")
    if make is None:
        pytest.skip("NOT TESTED: no mkfs.ntfs here: apt-get install ntfs-3g")
    subprocess.run([make, "--fast", "--force", image], check=True, capture_output=True)
    with mounted(tmp_path / "disk", "-t", "ntfs-3g", "-o", "loop,uid=1234,umask=022", str(image)) as disk:
        home = Home(disk / "home")
        postgres = start(home)
        assert postgres.data.parent.parent == system_user.ELSEWHERE
        assert start(home).data == postgres.data
        remove_cluster(home.postgres_data)
