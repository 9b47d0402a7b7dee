"""Files for TensorFlow Serving beside the versions of an export: its model config, and a file for Docker Compose."""

from __future__ import annotations

import os
import pathlib
import re

CONFIG_NAME, COMPOSE_NAME = "models.config", "compose.yaml"
GRPC_PORT, REST_PORT = 8500, 8501

_CONFIG = """\
model_config_list {{
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
  }}
}}
"""

_COMPOSE = """\
# docker compose -f compose.yaml up
services:
  "{name}":
    image: tensorflow/serving
    command: ["--model_config_file=/models/{name}/{config}"]
    # gRPC and REST, for programs on this machine alone: TensorFlow Serving lets everybody in.
    ports: ["127.0.0.1:{grpc}:8500", "127.0.0.1:{rest}:8501"]
    volumes: [{{type: bind, source: ., target: "/models/{name}", read_only: true}}]
"""


def model_name(export_dir: str | os.PathLike[str]) -> str:
    """Returns the name under which an export is served: its folder's, without what URLs and paths do not take."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", pathlib.Path(export_dir).resolve().name)


def contents(name: str) -> dict[str, bytes]:
    """Returns the content of the files, by their names.

    Args:
        name: name of the model in requests.
    """
    config = _CONFIG.format(name=name)
    compose = _COMPOSE.format(name=name, config=CONFIG_NAME, grpc=GRPC_PORT, rest=REST_PORT)
    return {CONFIG_NAME: config.encode(), COMPOSE_NAME: compose.encode()}
