"""What this project keeps on a machine is its owner's alone: nobody else may look in.

Nor may anybody else choose where it lies. In a folder that everybody may write to, such as
/tmp, another user can lay a link under the name of scratch before we make it.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from deployments.local.layout import layout_of
from deployments.local.stack.waiting import Say
from policy.config import Config
from policy.errors import ConfigError

NOT_STARTED = "nothing was started"
_LINKS_MAX = 40  # as many as the system follows


def make_private(config: Config, say: Say) -> None:
    """Make root and scratch, or close them to other users. Raises ConfigError.

    What lies in a folder that cannot be entered is closed with it, whatever its own mode.
    """
    require_own(config, NOT_STARTED)
    for setting, folder in _resolved(config):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        require_own(config, NOT_STARTED)  # whoever was faster than the line above
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(opened)
            if found.st_uid != os.getuid():
                raise _of_another(setting, folder, found.st_uid, NOT_STARTED)
            mode = stat.S_IMODE(found.st_mode)
            if mode & 0o077:
                os.fchmod(opened, 0o700)
                say(f"{folder} was open to other users (mode {mode:o}); now it is yours alone")
        finally:
            os.close(opened)


def require_own(config: Config, holds: str) -> None:
    """Nobody else may have chosen where root and scratch lie, nor own them: see the links.

    Raises ConfigError, in which `holds` says what holds now.
    """
    require_own_links(config, holds)
    for setting, folder in _resolved(config):
        if folder.exists() and (owner := folder.stat().st_uid) != os.getuid():
            raise _of_another(setting, folder, owner, holds)


def require_own_links(config: Config, holds: str) -> None:
    """No link on the way to root or scratch may be of another user. Raises ConfigError."""
    for setting, told in _told(config):
        for link in links_on(Path(told)):
            owner = link.lstat().st_uid
            if not may_lead(os.getuid(), owner):
                raise ConfigError(
                    f"{setting} (={told}) leads through {link}, a link of user {owner}",
                    expected=f"only links of user {os.getuid()}, who runs this, or of root",
                    holds=holds,
                    do=f"set {setting} to a folder of your own, for example in your home",
                )


def may_lead(user: int, owner: int) -> bool:
    """Whether a user's files may lie where a link of `owner` leads."""
    return owner in (user, 0)


def links_on(path: Path) -> Iterator[Path]:
    """Every link on the way to `path`, and on the ways that these links name."""
    at, waiting, links = Path("/"), [*reversed(path.absolute().parts[1:])], 0
    while waiting:
        name = waiting.pop()
        at = at.parent if name == ".." else at / name
        if not at.is_symlink():
            continue
        yield at
        links += 1
        if links > _LINKS_MAX:
            return  # the system does not follow it to its end either
        leads = at.readlink()
        at = Path("/") if leads.is_absolute() else at.parent
        waiting += reversed([part for part in leads.parts if part != "/"])


def _of_another(setting: str, folder: Path, owner: int, holds: str) -> ConfigError:
    return ConfigError(
        f"{setting} (={folder}) belongs to user {owner}",
        expected=f"a folder of user {os.getuid()}, who runs this",
        holds=holds,
        do=f"set {setting} to a folder of your own, or take ownership of this one",
    )


def _told(config: Config) -> Iterator[tuple[str, str]]:
    """The settings that are folders of this machine, as they are set."""
    if "://" not in config.root:
        yield "root", config.root
    yield "scratch", config.scratch


def _resolved(config: Config) -> Iterator[tuple[str, Path]]:
    layout_of(config)  # raises what is wrong with them together
    for setting, told in _told(config):
        yield setting, Path(told).resolve()
