"""Validate configuration files, or print the schema; see policy/config/__init__.py."""

import argparse
import json
import sys
from pathlib import Path

from policy.config import Config, load_config
from policy.errors import ConfigError

parser = argparse.ArgumentParser(prog="python -m policy.config", description=__doc__)
parser.add_argument("files", nargs="*", type=Path, help="such as deployments/local.yaml")
parser.add_argument("--schema", action="store_true", help="print the JSON schema for editors")
chosen = parser.parse_args()
if chosen.schema == bool(chosen.files):
    parser.error("name files to validate, or --schema")
if chosen.schema:
    print(json.dumps(Config.model_json_schema(), indent=2))
for path in chosen.files:
    try:
        load_config(path)
    except ConfigError as error:
        sys.exit(f"error: {error}")
