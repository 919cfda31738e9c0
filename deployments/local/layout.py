"""Where the place `local` keeps what it works with: all of it below `config.scratch`.

The folder may vanish at any time; what must last lies in the store.

supervisor/    supervisord's configuration, one file per program, its socket and lock
logs/          one log per process, rotated
prefect/       PREFECT_HOME with the server's database; in root, where that is a folder
endpoints/N/   Envoy's bootstrap, xds/ (clusters and routes), answers.db (whose truth is known),
               failed/ (why a release could not be served)
serving/N/     the releases that endpoint N serves, each under its digest
"""

from dataclasses import dataclass
from pathlib import Path

from policy.config import Config
from policy.errors import ConfigError

# A unix socket's address holds 104 bytes on macOS and 108 on Linux; supervisord first binds
# to the name with its process id appended.
_SOCKET_BYTES_MAX = 95


@dataclass(frozen=True)
class Layout:
    scratch: Path
    home: Path

    @property
    def logs(self) -> Path:
        return self.scratch / "logs"

    @property
    def supervisor(self) -> Path:
        return self.scratch / "supervisor"

    @property
    def programs(self) -> Path:
        return self.supervisor / "conf.d"

    @property
    def socket(self) -> Path:
        return self.supervisor / "sock"

    @property
    def prefect(self) -> Path:
        """PREFECT_HOME: its blocks and runs are people's own, so they lie with what lasts."""
        return self.home / "prefect"

    def endpoint(self, name: str) -> Path:
        return self.scratch / "endpoints" / name

    def xds(self, name: str) -> Path:
        return self.endpoint(name) / "xds"

    def answers(self, name: str) -> Path:
        return self.endpoint(name) / "answers.db"

    def failed(self, name: str) -> Path:
        return self.endpoint(name) / "failed"

    def serving(self, name: str) -> Path:
        return self.scratch / "serving" / name


_KEPT = ("ledger", "ledger-snapshots", "releases", "keys", "runs", "data", "copies", "prefect")


def require_apart(config: Config) -> None:
    """What may vanish must not hold what must last, whatever links and dots say.

    Raises ConfigError.
    """
    if "://" in config.root:
        return
    root, scratch = Path(config.root).resolve(), Path(config.scratch).resolve()
    inside = any(scratch.is_relative_to(root / name) for name in _KEPT)
    if inside or root.is_relative_to(scratch):
        raise ConfigError(
            f"scratch (={config.scratch}) is {scratch}, and root (={config.root}) is {root}",
            expected="a scratch that neither holds root nor lies where root keeps things",
            holds="nothing was started",
            do="set scratch to a folder of its own, such as .arr-coc/scratch",
        )


def layout_of(config: Config) -> Layout:
    """The layout below `config.scratch`, relative to the current folder. Raises ConfigError."""
    require_apart(config)
    scratch = Path(config.scratch).resolve()
    layout = Layout(scratch, scratch if "://" in config.root else Path(config.root).resolve())
    if len(bytes(layout.socket)) > _SOCKET_BYTES_MAX:
        raise ConfigError(
            f"scratch (={layout.scratch}) is too long: a unix socket could not be made in it",
            expected=f"{layout.socket} in at most {_SOCKET_BYTES_MAX} bytes",
            do="set scratch to a shorter path",
        )
    return layout
