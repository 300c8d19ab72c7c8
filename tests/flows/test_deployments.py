"""prefect.yaml and the automations against the flows that they name: without a server, as a server would check them."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import yaml

from flows.orchestration.server import load_flow, read_deployments

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = read_deployments(ROOT / "prefect.yaml")
NAMES = [f"{entry['entrypoint'].partition(':')[2]}/{entry['name']}" for entry in DEPLOYMENTS]
# The comparison of two policies belongs to a round, which names them.
NO_DEPLOYMENT = {"gain"}


@pytest.mark.parametrize("entry", DEPLOYMENTS, ids=NAMES)
def test_parameters_are_ones_that_the_flow_takes(entry):
    from prefect.utilities.schema_tools.validation import validate

    flow = load_flow(entry["entrypoint"])
    schema = flow.parameters.model_dump_for_openapi()
    parameters = entry.get("parameters") or {}
    assert not validate(parameters, schema, ignore_required=True)
    assert set(parameters) <= set(schema["properties"])
    if "request" in parameters and "constitution" not in parameters["request"]:
        # What a schedule starts has nobody to fill the form.
        flow.validate_parameters(parameters)


@pytest.mark.parametrize("entry", DEPLOYMENTS, ids=NAMES)
def test_schedules_ship_inactive_under_a_slug(entry):
    # A paused run would lose its slot, and be ended for it.
    assert entry.get("concurrency_limit") == (None if entry["name"] == "audit-labels" else 1)
    for schedule in entry["schedules"]:
        assert schedule["active"] is False and re.fullmatch(r"[a-z-]+", schedule["slug"])
        load_flow(entry["entrypoint"]).validate_parameters(entry["parameters"])


def test_every_flow_has_a_deployment_and_none_is_named_twice():
    from prefect import Flow

    found = {}
    for path in sorted((ROOT / "flows" / "orchestration").glob("*.py")):
        if re.search(r"^from prefect import .*\bflow\b", path.read_text(), re.MULTILINE):
            module = importlib.import_module(f"flows.orchestration.{path.stem}")
            found |= {f.name: f for f in vars(module).values() if isinstance(f, Flow)}
    deployed = {load_flow(entry["entrypoint"]).name for entry in DEPLOYMENTS}
    assert set(found) - NO_DEPLOYMENT == deployed
    names = [(load_flow(entry["entrypoint"]).name, entry["name"]) for entry in DEPLOYMENTS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("entry", DEPLOYMENTS, ids=NAMES)
def test_every_field_of_the_form_has_a_title_and_a_description(entry):
    schema = load_flow(entry["entrypoint"]).parameters.model_dump_for_openapi()
    for definition in schema.get("definitions", {}).values():
        for name, field in definition.get("properties", {}).items():
            assert field.get("title") and field.get("description"), name
            assert isinstance(field.get("position"), int), name


def test_automations_name_deployments_that_exist_and_wait_for_an_address():
    from prefect.events.schemas.automations import AutomationCore

    from flows.orchestration.events import read_automations

    deployed = {f"{load_flow(e['entrypoint']).name}/{e['name']}" for e in DEPLOYMENTS}
    by_name = {entry["name"]: entry for entry in read_automations()}
    for entry in by_name.values():
        for action in entry["actions"]:
            assert action.get("deployment") is None or action["deployment"] in deployed
        AutomationCore.model_validate({**entry, "actions": []})
    assert by_name["charter-relabel"]["enabled"] is True
    assert by_name["charter-exam-or-audit-failed"]["enabled"] is False


def test_a_pool_gets_the_same_entrypoints():
    for entry in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        assert entry["work_pool"]["name"] == "charter"
        assert (ROOT / entry["entrypoint"].partition(":")[0]).is_file()
