"""What lies in root and scratch is their owner's alone."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deployments import console, files
from deployments.local.layout import Layout, layout_of
from deployments.local.stack import life, privacy
from deployments.local.stack.privacy import make_private
from deployments.local.supervisor.sections import daemon_section
from deployments.store import open_store
from policy.errors import ConfigError
from tests.local.fixtures import configured


@pytest.fixture(autouse=True)
def careless():
    """As most shells are: what is made may be read by everybody."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_folders_that_were_open_are_closed_and_that_is_told_once(tmp_path):
    config = configured(tmp_path / "root")
    (scratch := layout_of(config).scratch).mkdir(parents=True)
    for folder in (scratch, scratch.parent):
        folder.chmod(0o755)
    told = []
    for _ in range(2):
        make_private(config, told.append)
    assert [mode(folder) for folder in (scratch, scratch.parent)] == [0o700, 0o700]
    assert told == [
        f"{folder} was open to other users (mode 755); now it is yours alone"
        for folder in (scratch.parent, scratch)
    ]


def test_folders_that_are_made_are_closed_from_the_start(tmp_path):
    config, told = configured(tmp_path / "a" / "root"), []
    make_private(config, told.append)
    assert mode(layout_of(config).scratch) == mode(tmp_path / "a" / "root") == 0o700
    assert told == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a folder away")
def test_a_root_of_another_user_is_refused(tmp_path):
    config = configured(tmp_path / "root")
    (tmp_path / "root").mkdir()
    os.chown(tmp_path / "root", 12345, -1)
    with pytest.raises(ConfigError, match=r"root \(=.*\) belongs to user 12345; expected"):
        make_private(config, print)


@pytest.mark.parametrize(
    ("user", "owner", "may"),
    [(1000, 1000, True), (1000, 0, True), (0, 0, True), (1000, 1001, False), (0, 1000, False)],
)
def test_a_link_may_lead_if_it_is_the_user_s_own_or_root_s(user, owner, may):
    assert privacy.may_lead(user, owner) == may


def test_every_link_on_the_way_is_seen_and_those_that_links_name(tmp_path):
    (tmp_path / "real/inner").mkdir(parents=True)
    (tmp_path / "real/deep").symlink_to("../second")
    (tmp_path / "first").symlink_to(tmp_path / "real")
    (tmp_path / "second").symlink_to("real/inner")
    (tmp_path / "round").symlink_to("round")

    def links(path):
        return [link.relative_to(tmp_path).as_posix() for link in privacy.links_on(path)]

    assert links(tmp_path / "real/inner/missing") == []
    assert links(tmp_path / "first/deep/scratch") == ["first", "real/deep", "second"]
    assert links(tmp_path / "first/../real/deep") == ["first", "real/deep", "second"]
    assert set(links(tmp_path / "round/scratch")) == {"round"}


@pytest.fixture
def misled(tmp_path):
    """A scratch that is a link of another user to a folder of ours, and that folder."""
    if os.getuid() != 0:
        pytest.skip("only root may give a link away")
    ours = tmp_path / "ours"
    for inner in ("logs", "photos"):
        (ours / inner).mkdir(parents=True)
    ours.chmod(0o755)
    (link := tmp_path / "scratch").symlink_to(ours)
    os.lchown(link, 12345, -1)
    config = configured(tmp_path / "root")
    (tmp_path / "root/ledger").mkdir(parents=True)
    return config.model_copy(update={"scratch": str(link)}), ours


def start(config, say):
    life.up(config, say, file=Path("local.yaml"))


@pytest.mark.parametrize(
    ("command", "holds"),
    [
        (start, "nothing was started"),
        (life.stop, "nothing was stopped"),
        (life.clean, "nothing was deleted"),
    ],
)
@pytest.mark.parametrize("below", ["", "/logs"])
def test_where_another_user_s_link_leads_nothing_is_touched(misled, command, holds, below):
    config, ours = misled
    scratch = config.scratch + below
    config, said = config.model_copy(update={"scratch": scratch}), []
    wanted = rf"scratch \(={scratch}\) leads through .*/scratch, a link of user 12345; expected"
    with pytest.raises(ConfigError, match=f"{wanted}.*{holds}; to do: set scratch"):
        command(config, said.append)
    assert said == []
    assert mode(ours) == 0o755
    assert sorted(path.name for path in ours.rglob("*")) == ["logs", "photos"]
    assert (Path(config.root) / "ledger").is_dir()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a folder away")
@pytest.mark.parametrize("command", [start, life.clean])
def test_a_scratch_of_another_user_is_left_alone(tmp_path, command):
    config = configured(tmp_path / "root")
    (Path(config.scratch) / "logs").mkdir(parents=True)
    os.chown(config.scratch, 12345, -1)
    with pytest.raises(ConfigError, match=r"scratch \(=.*\) belongs to user 12345; expected"):
        command(config, print)
    assert [path.name for path in Path(config.scratch).iterdir()] == ["logs"]


def test_a_link_of_one_s_own_is_followed(tmp_path):
    config = configured(tmp_path / "root")
    (tmp_path / "large-disk").mkdir(mode=0o700)
    (tmp_path / "root").symlink_to("large-disk")
    make_private(config, print)
    assert (tmp_path / "large-disk/scratch").is_dir()


def test_what_the_store_keeps_is_closed_whatever_the_shell_s_umask(tmp_path):
    store = open_store(str(tmp_path / "root"))
    store.create("ledger/00000001.json", b"{}")
    (made := tmp_path / "made").mkdir()
    (made / "weights").write_bytes(b"1")
    store.upload(made, f"{store.root}/releases/one")
    files.write_whole(tmp_path / "root/scratch/logs/conf", "text")
    with files.exclusive(tmp_path / "root/scratch/a/lock", "a lock"):
        assert open_to_others(tmp_path / "root") == []


def open_to_others(folder: Path) -> list[Path]:
    found = [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    return [path for path in found if path.stat().st_mode & 0o077]


@pytest.mark.parametrize("begin", ["exit_code_of(lambda: 0)", "arguments('a', 'b')"])
def test_every_command_writes_for_its_owner_alone(tmp_path, begin):
    code = f"from deployments import console; console.{begin}; open('file', 'w')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=here())
    assert mode(tmp_path / "file") == 0o600


def here():
    return {**os.environ, "PYTHONPATH": str(Path(console.__file__).parents[1])}


def test_so_does_whatever_supervisord_starts(tmp_path):
    text = daemon_section(Layout(tmp_path, tmp_path))
    assert "umask=077" in text
    assert "chmod=0600" in text
