"""The one configuration file, typed: `deployments/<environment>.yaml` is the GitOps truth.

Every field has its unit in its name (`_s` seconds, `_min`/`_max` limits) or is a fraction
in [0, 1]; weights are percent. Unknown keys are errors, so that a typo cannot silently do
nothing. Files are complete: no inheritance, no merging, no defaults hidden in code.

    python -m policy.config deployments/local.yaml     # validate one file
    python -m policy.config --schema                   # print the JSON schema for editors
"""

from policy.config.file import Config, load_config, parse_config, with_model
from policy.config.rollout import Analysis, Deadlines, Judge, Limits, Rollout, Shadow, Watch
from policy.config.serving import Local, Notifications, Serving, Signing
from policy.config.training import (
    Benchmark,
    Checkpointing,
    Compute,
    Dataset,
    EarlyStopping,
    Gates,
    Model,
    Retraining,
    Tracking,
)

__all__ = [
    "Analysis",
    "Benchmark",
    "Checkpointing",
    "Compute",
    "Config",
    "Dataset",
    "Deadlines",
    "EarlyStopping",
    "Gates",
    "Judge",
    "Limits",
    "Local",
    "Model",
    "Notifications",
    "Retraining",
    "Rollout",
    "Serving",
    "Shadow",
    "Signing",
    "Tracking",
    "Watch",
    "load_config",
    "parse_config",
    "with_model",
]
