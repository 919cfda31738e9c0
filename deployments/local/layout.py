"""Where the place `local` keeps things: all of it below one folder, `config.root`.

supervisor/    supervisord's configuration, one file per program, its socket and lock
logs/          one log per process, rotated
prefect/       PREFECT_HOME with the server's database
endpoints/N/   Envoy's bootstrap, xds/ (clusters and routes), tallies/ of the replays
serving/N/     the releases that endpoint N serves, each under its digest
"""

from dataclasses import dataclass
from pathlib import Path

from policy.errors import ConfigError

# A unix socket's address holds 104 bytes on macOS and 108 on Linux; supervisord first binds
# to the name with its process id appended.
_SOCKET_BYTES_MAX = 95


@dataclass(frozen=True)
class Layout:
    root: Path

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def supervisor(self) -> Path:
        return self.root / "supervisor"

    @property
    def programs(self) -> Path:
        return self.supervisor / "conf.d"

    @property
    def socket(self) -> Path:
        return self.supervisor / "sock"

    @property
    def prefect(self) -> Path:
        return self.root / "prefect"

    def endpoint(self, name: str) -> Path:
        return self.root / "endpoints" / name

    def xds(self, name: str) -> Path:
        return self.endpoint(name) / "xds"

    def tallies(self, name: str) -> Path:
        return self.endpoint(name) / "tallies"

    def serving(self, name: str) -> Path:
        return self.root / "serving" / name


def layout_of(root: str) -> Layout:
    """The layout below `root`, relative to the current folder. Raises ConfigError."""
    layout = Layout(Path(root).resolve())
    if len(bytes(layout.socket)) > _SOCKET_BYTES_MAX:
        raise ConfigError(
            f"root (={layout.root}) is too long: a unix socket could not be made in it",
            expected=f"{layout.socket} in at most {_SOCKET_BYTES_MAX} bytes",
            do="set root to a shorter path",
        )
    return layout
