"""Where the place `local` keeps what it works with: all of it below `config.scratch`.

The folder may vanish at any time; what must last lies in the store.

supervisor/    supervisord's configuration, one file per program, its socket and locks; alive/
               holds the lock of each server that goes on when supervisord is killed
logs/          one log per process, rotated
prefect/       PREFECT_HOME with the server's database; in root, where that is a folder
worker/        what Prefect's worker writes for a while
sockets/       what only this user may reach has no port: Envoy's administration, the door of
               each endpoint's operators, the model servers
endpoints/N/   Envoy's bootstrap, xds/ (clusters and routes), answers.db (whose truth is known),
               failed/ (why a release could not be served)
serving/N/     the releases that endpoint N serves, each under its digest

Beside these lies what tasks and commands put there at any place: `OF_SCRATCH` lists all of it,
and `make clean` deletes nothing else.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.files import LOCK, PART
from policy.config import Config
from policy.errors import ConfigError

OF_SCRATCH = (
    "broken-copy", "checked", "copies", "downloads", "driving", "endpoints", "jobs",
    "ledger-head", "logs", "prefect", "releases", "replays", "retraining.lock", "serving",
    "sockets", "supervisor", "telling.lock", "worker",
)  # fmt: skip
"""The names of all that this project makes in scratch."""

# A unix socket's address holds 104 bytes on macOS and 108 on Linux, the last of them zero;
# supervisord first binds to the name with its process id appended.
_SOCKET_BYTES_MAX, _PID_BYTES = 103, 8
_SHORT = 12  # letters of a digest that stand for a name that is too long


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
    def alive(self) -> Path:
        return self.supervisor / "alive"

    @property
    def socket(self) -> Path:
        return self.supervisor / "sock"

    @property
    def sockets(self) -> Path:
        return self.scratch / "sockets"

    def admin_socket(self, endpoint: str) -> Path:
        """Envoy's own administration."""
        return self._socket(f"{endpoint}.admin")

    def operators_socket(self, endpoint: str) -> Path:
        """The endpoint's door for its operators, at which nobody is asked for a token."""
        return self._socket(f"{endpoint}.operators")

    def model_socket(self, endpoint: str, version: str, replicas: int) -> Path:
        """The servers of one version: of each this path with a dot and its number from 0."""
        return self._socket(f"{endpoint}.{version}", f".{replicas - 1}")

    def _socket(self, name: str, more: str = "") -> Path:
        path = self.sockets / name
        if len(bytes(path)) + len(more) <= _SOCKET_BYTES_MAX:
            return path
        return self.sockets / hashlib.sha256(name.encode()).hexdigest()[:_SHORT]

    @property
    def prefect(self) -> Path:
        """PREFECT_HOME: its blocks and runs are people's own, so they lie with what lasts."""
        return self.home / "prefect"

    @property
    def worker(self) -> Path:
        """For a while, what Prefect's worker writes."""
        return self.scratch / "worker"

    @property
    def login(self) -> Path:
        """What opens Prefect's server; see stack/login.py."""
        return self.prefect / "login"

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


def is_of_scratch(name: str) -> bool:
    """Whether this project made what has this name in scratch; half-written files are too."""
    hidden = name.startswith(tuple(f".{one}." for one in OF_SCRATCH))
    return name in OF_SCRATCH or (hidden and name.endswith((LOCK, PART)))


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
    for path, room in _longest_sockets(config, layout):
        if len(bytes(path)) > room:
            raise ConfigError(
                f"scratch (={layout.scratch}) is too long: no unix socket could be made in it",
                expected=f"{path} in at most {room} bytes",
                do="set scratch to a shorter path",
            )
    return layout


def _longest_sockets(config: Config, layout: Layout) -> Sequence[tuple[Path, int]]:
    """The longest address of each kind, and how long it may be."""
    most = max(endpoint.replicas for endpoint in config.endpoints.values())
    model = layout.sockets / f"{'0' * _SHORT}.{most - 1}"
    return [(layout.socket, _SOCKET_BYTES_MAX - _PID_BYTES), (model, _SOCKET_BYTES_MAX)]
