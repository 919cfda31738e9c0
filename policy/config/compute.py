"""The sections `compute` and `checkpointing`: where a training runs and what it keeps."""

from pydantic import Field

from policy.config.section import Count, Duration, Positive, Section


class Compute(Section):
    """Where and on how much a training runs."""

    processes: Positive = Field(description="processes under torchrun; 1 runs without it")
    threads: Positive = Field(description="CPU threads of each process")
    machine: str = Field(description="machine type; 'local' on this machine")
    accelerators: Count = Field(description="per machine; 0 trains on the CPU")
    accelerator: str = Field(description="accelerator type, or 'none'")
    spot: bool
    restarts_max: Count = Field(description="restarts after a crash or a spot warning")
    timeout_s: Duration


class Checkpointing(Section):
    """What a training that is killed goes on from."""

    every_s: Duration
    keep: Positive
    uri: str = Field(description="'run' for the run's own folder, a folder, gs:// or s3://")
