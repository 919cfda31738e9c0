"""What this project keeps on a machine is its owner's alone: nobody else may look in."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from deployments.local.layout import layout_of
from deployments.local.stack.waiting import Say
from policy.config import Config
from policy.errors import ConfigError


def make_private(config: Config, say: Say) -> None:
    """Make root and scratch, or close them to other users. Raises ConfigError.

    What lies in a folder that cannot be entered is closed with it, whatever its own mode.
    """
    for setting, folder in _folders(config):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid != os.getuid():
            raise ConfigError(
                f"{setting} (={folder}) belongs to user {found.st_uid}",
                expected=f"a folder of user {os.getuid()}, who runs this",
                holds="nothing was started",
                do=f"set {setting} to a folder of your own, or change its owner",
            )
        if mode & 0o077:
            folder.chmod(0o700)
            say(f"{folder} was open to other users (mode {mode:o}); now it is yours alone")


def _folders(config: Config) -> Iterator[tuple[str, Path]]:
    layout = layout_of(config)
    if "://" not in config.root:
        yield "root", Path(config.root).resolve()
    yield "scratch", layout.scratch
