"""What the processes that care for one job tell each other, in a folder of scratch."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

from deployments.files import write_whole
from policy.errors import JobFailed, StoreError


class Desk:
    """The folder of one job; see deployments/local/jobs.py for what lies in it."""

    def __init__(self, folder: Path, key: str) -> None:
        name = quote(key, safe="")
        if name in ("", ".", ".."):
            raise StoreError(f"{key!r} is not a job key", expected="a name")
        self._folder, self._run = folder / name, ""
        self.lock, self.output = self._folder / "lock", self._folder / "output"

    @contextmanager
    def running(self) -> Iterator[None]:
        """This process runs the job from here on, and tells others if it fails.

        The caller holds the lock.
        """
        self._run = uuid4().hex[:12]
        for old in self._folder.glob("cancel-*"):
            old.unlink(missing_ok=True)
        self._failure_file.unlink(missing_ok=True)
        write_whole(self._folder / "run", self._run)
        try:
            yield
        except JobFailed as error:
            self.tell(error)
            raise

    def tell(self, error: JobFailed) -> None:
        """Leave word of how the run failed, for those who wait. The caller holds the lock.

        Where there is no room for that they run the job themselves, and see.
        """
        told = {"id": uuid4().hex, "exit_code": error.exit_code, "message": str(error)}
        with suppress(OSError):
            write_whole(self._failure_file, json.dumps(told))

    @property
    def stop_file(self) -> Path:
        """Once this exists the run that `running` began is to end."""
        return self._folder / f"cancel-{self._run}"

    @property
    def cancelled(self) -> bool:
        return self.stop_file.exists()

    def cancel(self) -> None:
        """Ask the present run to end, whoever has it."""
        run = self._folder / "run"
        if run.exists():
            (self._folder / f"cancel-{run.read_text()}").touch()

    def failure(self) -> str:
        """How the last run failed, as text to compare; "" if it did not, or was killed."""
        try:
            return self._failure_file.read_text()
        except FileNotFoundError:
            return ""

    def failed(self) -> JobFailed:
        """The error with which the last run failed."""
        told = json.loads(self.failure())
        return JobFailed(told["message"], exit_code=told["exit_code"])

    @property
    def _failure_file(self) -> Path:
        return self._folder / "failed.json"
