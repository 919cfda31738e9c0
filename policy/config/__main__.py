"""Validate a configuration file, or print the schema; see policy/config/__init__.py."""

import json
import sys
from pathlib import Path

from policy.config import Config, load_config
from policy.errors import ConfigError

if sys.argv[1:] == ["--schema"]:
    print(json.dumps(Config.model_json_schema(), indent=2))
else:
    try:
        load_config(Path(sys.argv[1]))
    except ConfigError as error:
        sys.exit(f"error: {error}")
