"""The one configuration file, typed: `deployments/<environment>.yaml` is the GitOps truth.

Every field has its unit in its name (`_s` seconds, `_min`/`_max` limits) or is a fraction
in [0, 1]; weights are percent. Unknown keys are errors, so that a typo cannot silently do
nothing. Files are complete: no inheritance, no merging, no defaults hidden in code.

    python -m policy.config deployments/local.yaml     # validate one file
    python -m policy.config --schema                   # print the JSON schema for editors
"""

from policy.config.compute import Checkpointing, Compute
from policy.config.dataset import Dataset
from policy.config.endpoints import EndpointSettings
from policy.config.file import Config
from policy.config.gates import Benchmark, Gates
from policy.config.model import EarlyStopping, Model
from policy.config.notifications import Notifications
from policy.config.places import Gcp, Kubernetes, Local, LocalEndpoint
from policy.config.reading import load_config, parse_config, with_model
from policy.config.retraining import Retraining
from policy.config.rollout import Analysis, Deadlines, Judge, Limits, Rollout, Shadow, Watch
from policy.config.serving import Serving
from policy.config.signing import Signing
from policy.config.tracking import Tracking

__all__ = [
    "Analysis",
    "Benchmark",
    "Checkpointing",
    "Compute",
    "Config",
    "Dataset",
    "Deadlines",
    "EarlyStopping",
    "EndpointSettings",
    "Gates",
    "Gcp",
    "Judge",
    "Kubernetes",
    "Limits",
    "Local",
    "LocalEndpoint",
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
