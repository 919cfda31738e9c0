"""The model servers of one endpoint: brought from the store, verified, kept by supervisord."""

import http.client
import json
import shutil
import sys
import xmlrpc.client
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from deployments import Release, Store
from deployments.files import write_whole
from deployments.local import loopback
from deployments.local.envoy.configuration import HEALTH_ROUTE, PREDICT_ROUTE, Server
from deployments.local.layout import layout_of
from deployments.local.servers import local_of, program_name, servers_of
from deployments.local.supervisor.programs import Process, Supervisor, tail
from deployments.local.supervisor.sections import Program
from deployments.releases import folder as releases
from deployments.releases.keys import trusted
from policy.config import Config
from policy.errors import (
    Busy,
    EndpointError,
    EndpointSilent,
    ReleaseError,
    StoreError,
)

_LAST_WORDS = 6  # lines of a server's log
_LOADS_S = 60  # a process younger than this may still be on its way to its socket
_HANGS_S = 10.0  # more than a busy machine takes: nothing but HTTP is done on the event loop
_FOUND_S = 3  # Envoy looks several times a second for one that is away


class ModelServers:
    """One group of server processes for each version.

    Trouble of the store or of this machine is EndpointSilent; a release that is not what it
    should be is noted as refused, with the reason.

    Args:
        server: the module that serves a release by the contract of model/README.md.
    """

    def __init__(self, config: Config, endpoint: str, store: Store, server: str) -> None:
        self._endpoint, self._store, self._server = endpoint, store, server
        self._local, self._layout = local_of(config), layout_of(config)
        self._replicas = config.endpoints[endpoint].replicas
        self._serving = config.serving
        self._trusted = partial(trusted, config)
        self._supervisor = Supervisor(self._layout)

    def present(self) -> Sequence[Server]:
        return servers_of(self._supervisor, self._endpoint)

    def start(self, release: Release) -> None:
        """Start servers of `release`; if it does not verify, it is refused instead."""
        with self._blaming_nobody():
            try:
                folder = self._fetch(release)
            except ReleaseError as error:
                note = {"digest": release.digest, "reason": str(error)}
                write_whole(self._note(release.version), json.dumps(note))
                return
            self._note(release.version).unlink(missing_ok=True)
            self._layout.sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._supervisor.apply(self._program(release, folder))

    def mend(self, server: Server) -> None:
        """Start one that gave up again if its working copy was damaged; else leave it."""
        with self._blaming_nobody():
            try:
                releases.verify(self.copy_of(server), server.digest, self._trusted())
            except ReleaseError:
                self.start(Release(server.version, server.digest))
                if server.version not in self.refused():
                    self._supervisor.start_program(program_name(self._endpoint, server.version))

    def cut_off(self, servers: Sequence[Server]) -> Sequence[Process]:
        """The processes that run but whose sockets were deleted: nobody new reaches them.

        Raises EndpointSilent.
        """
        found = [s for s in servers if not all(Path(path).exists() for path in s.sockets)]
        with self._blaming_nobody():
            own = [pair for server in found for pair in self._processes(server).items()]
        return [p for path, p in own if _lives_long(p) and not path.exists()]

    def hung(self, servers: Sequence[Server]) -> Sequence[Process]:
        """The processes that run and answer nobody. Raises EndpointSilent.

        Envoy sends such a one nothing, so that only an outage of all would show it.
        """
        with self._blaming_nobody():
            own = [pair for server in servers for pair in self._processes(server).items()]
        return [p for path, p in own if _lives_long(p) and path.exists() and _hangs(path)]

    def renew(self, servers: Sequence[Server], *, hung: bool = False) -> bool:
        """Restart what is cut off, of each version one process at a time.

        Args:
            hung: what hangs as well; to find it takes seconds.

        Returns:
            Whether some are left for a later call, when the first has its socket again.
        """
        with self._blaming_nobody():
            self._layout.sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
            left = [self._renew(server, hung) for server in servers]  # each has its turn
            return any(left)

    def _renew(self, server: Server, hung: bool) -> bool:
        lost = [*self.cut_off([server]), *(self.hung([server]) if hung else ())]
        if not lost:
            return False
        own = self._processes(server)
        if any(process.gave_up for process in own.values()):
            return False  # it cannot be started again, perhaps
        # Who is cut off may still answer over connections that are open: it is not stopped
        # before the one that was started anew takes its place.
        others = ((process, path) for path, process in own.items() if process not in lost)
        if any(_begins(process, path) for process, path in others):
            return True
        try:
            self._fetch(Release(server.version, server.digest))
        except ReleaseError:
            return False
        self._supervisor.restart_process(lost[0])
        return len(lost) > 1

    def _processes(self, server: Server) -> Mapping[Path, Process]:
        """A server's processes by their sockets."""
        name = program_name(self._endpoint, server.version)
        own = (p for p in self._supervisor.processes() if p.program == name)
        return {Path(server.sockets[int(p.process)]): p for p in own}

    def remove(self, server: Server) -> None:
        """Stop its processes and forget it."""
        with self._blaming_nobody():
            self._supervisor.remove(program_name(self._endpoint, server.version))
            shutil.rmtree(self.copy_of(server), ignore_errors=True)
            for socket in map(Path, server.sockets):
                socket.unlink(missing_ok=True)
                socket.with_name(f"{socket.name}.lock").unlink(missing_ok=True)

    def copy_of(self, server: Server) -> Path:
        """The working copy of the release that a server serves."""
        return self._layout.serving(self._endpoint) / server.digest

    def refused(self) -> Mapping[str, tuple[str, str]]:
        """Digest and reason of each release that could not be served, by version."""
        found = {}
        for path in self._layout.failed(self._endpoint).glob("*.json"):
            try:
                note = json.loads(path.read_text())
            except FileNotFoundError:
                continue  # another call has just forgotten it
            found[path.stem] = note["digest"], note["reason"]
        return found

    def forget_refused(self, keep: Collection[str]) -> None:
        for version in self.refused():
            if version not in keep:
                self._note(version).unlink(missing_ok=True)

    def gave_up(self, servers: Sequence[Server]) -> Mapping[str, str]:
        """Why each version whose processes all stopped for good did so.

        Raises EndpointSilent if supervisord is away: nobody would start what is written then.
        """
        with self._blaming_nobody():
            processes = self._supervisor.processes()
        found = {}
        for server in servers:
            name = program_name(self._endpoint, server.version)
            own = [process for process in processes if process.program == name]
            if own and all(process.gave_up for process in own):
                found[server.version] = _last_words(own[0])
        return found

    def _fetch(self, release: Release) -> Path:
        serving = self._layout.serving(self._endpoint)
        return releases.fetch(self._store, release, serving, self._trusted())

    def _note(self, version: str) -> Path:
        return self._layout.failed(self._endpoint) / f"{version}.json"

    def _program(self, release: Release, folder: Path) -> Program:
        socket = self._layout.model_socket(self._endpoint, release.version, self._replicas)
        return Program(
            name=program_name(self._endpoint, release.version),
            command=[sys.executable, "-m", self._server, "--release", str(folder)],
            environment={
                "ARR_COC_SOCKET": f"{socket}.{{number}}",
                "AIP_HTTP_PORT": "",  # whatever supervisord was told
                "AIP_HEALTH_ROUTE": HEALTH_ROUTE,
                "AIP_PREDICT_ROUTE": PREDICT_ROUTE,
                "ARR_COC_VERSION": release.version,
                "ARR_COC_DIGEST": release.digest,
                "ARR_COC_PICTURE_PIXELS_MAX": str(self._serving.picture_pixels_max),
                "ARR_COC_REQUEST_PIXELS_MAX": str(self._serving.request_pixels_max),
                "OMP_NUM_THREADS": str(self._local.threads),
                "PYTHONUNBUFFERED": "1",
            },
            folder=Path.cwd(),
            processes=self._replicas,
            restart="unexpected",
            lasts=True,
        )

    @contextmanager
    def _blaming_nobody(self) -> Iterator[None]:
        """EndpointError is supervisord's here: it did not answer, or not as it should."""
        trouble = (StoreError, Busy, EndpointError, OSError)
        try:
            yield
        except (*trouble, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise EndpointSilent(
                f"endpoint {self._endpoint} could not take the order: {error}",
                holds="what serves goes on",
                do="mend that; the order is given again until it is carried out",
            ) from error


def _lives_long(process: Process) -> bool:
    return process.alive and process.uptime_s >= _LOADS_S


def _hangs(socket: Path) -> bool:
    return not loopback.reacts_at(socket, HEALTH_ROUTE, _HANGS_S)


def _begins(process: Process, socket: Path) -> bool:
    """Whether it has been started lately, and Envoy may not have found it ready yet."""
    if not process.alive or _lives_long(process):
        return False
    return process.uptime_s < _FOUND_S or not loopback.answers_at(socket, HEALTH_ROUTE)


def _last_words(process: Process) -> str:
    return (
        f"its server gave up (exit code {process.exit_code}); the end of {process.log}:\n"
        f"{tail(process.log, _LAST_WORDS)}"
    )
