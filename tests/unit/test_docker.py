"""What docker/ names: commands, settings, metrics, keys and tables that there are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

from worker.cli import COMMANDS
from worker.metrics import names
from worker.pool.app import POLICY
from worker.reviews import LANES
from worker.settings import Settings, secret_variables

CHECKOUT = Path(__file__).parents[2]
DOCKER = CHECKOUT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
OURS = {name: one for name, one in COMPOSE["services"].items() if "LORACLE" in one["image"]}
PAGE = {"web"}
"""Made in another room, from its own day on."""


def manifests() -> list[dict[str, Any]]:
    paths = sorted((DOCKER / "kubernetes").glob("*.yaml"))
    return [one for path in paths for one in yaml.safe_load_all(path.read_text())]


def variables() -> set[str]:
    shared = {"DATABASE_URL", "REDIS_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"}
    ours = {f"LORACLE_{name.upper()}" for name in Settings.model_fields}
    files = {f"{name}_FILE" for name in (*secret_variables(), "LORACLE_WEB_TOKEN")}
    return shared | ours | files | {"HF_HOME", "OTEL_EXPORTER_OTLP_ENDPOINT"}


def test_compose_runs_commands_that_there_are_with_variables_and_secrets_that_there_are() -> None:
    for name, service in OURS.items():
        command = service["command"][0]
        assert command in {*COMMANDS, "--help"} | PAGE, name
        assert set(service["environment"]) <= variables(), name
        assert set(service["secrets"]) <= set(COMPOSE["secrets"]), name
        mounted = {Path(value).name for key, value in service["environment"].items() if key.endswith("_FILE")}
        assert mounted <= set(service["secrets"]), name


def test_every_container_of_ours_may_write_nowhere_but_where_it_must() -> None:
    for name, service in OURS.items():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
    for one in manifests():
        if one["kind"] in ("Deployment", "Job"):
            pod = one["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"]
            assert all(
                container["securityContext"]["readOnlyRootFilesystem"] for container in pod["containers"]
            )


def test_kubernetes_runs_what_compose_runs() -> None:
    for one in manifests():
        if one["kind"] in ("Deployment", "Job"):
            container = one["spec"]["template"]["spec"]["containers"][0]
            assert container["args"] == COMPOSE["services"][container["name"]]["command"]
            assert {variable["name"] for variable in container["env"]} <= variables()


def test_keda_scales_what_there_is_by_a_list_that_there_is() -> None:
    kinds = {(one["kind"], one["metadata"]["name"]) for one in manifests() if "metadata" in one}
    scaled = next(one for one in manifests() if one["kind"] == "ScaledObject")
    assert ("Deployment", scaled["spec"]["scaleTargetRef"]["name"]) in kinds
    triggers = {one["type"]: one for one in scaled["spec"]["triggers"]}
    assert set(triggers) == {"postgresql", "redis"}
    for one in triggers.values():
        assert ("TriggerAuthentication", one["authenticationRef"]["name"]) in kinds
    prefix = POLICY["broker_transport_options"]["global_keyprefix"]
    assert triggers["redis"]["metadata"]["listName"] in {prefix + lane for lane in LANES}


def test_alerts_and_dashboard_name_metrics_that_there_are() -> None:
    known = {metric.name for metric in names.ALL}
    known |= {f"{name}_{part}" for name in known for part in ("bucket", "sum", "count")}
    rules = yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
    board = json.loads((DOCKER / "grafana" / "dashboards" / "loracle.json").read_text())
    shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for text in [rule["expr"] for rule in rules] + shown:
        named = set(re.findall(r"\b(?:loracle|messaging|gen_ai)_\w+", re.sub(r"by \([^)]*\)", "", text)))
        assert named <= known, named - known
    guide = (DOCKER / "README.md").read_text()
    assert not [rule["alert"] for rule in rules if rule["alert"] not in guide]


def test_the_layer_of_dependencies_holds_all_of_them_and_not_the_project() -> None:
    command = [sys.executable, "docker/requirements.py", "pyproject.toml", "embedded", "web"]
    told = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert set(project["dependencies"]) | set(project["optional-dependencies"]["openvino"]) <= set(told)
    assert not any(line.startswith("loracle") for line in told)
