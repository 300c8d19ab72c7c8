"""What can be said of the Kubernetes files without a cluster."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def template():
    return json.loads((DEPLOY / "kubernetes" / "base-job-template.json").read_text())


@pytest.fixture(scope="module")
def workers_own():
    """The Kubernetes worker's own template, as Prefect ships it."""
    views = resources.files("prefect.server.api").joinpath("collections_data", "views")
    known = json.loads(views.joinpath("aggregate-worker-metadata.json").read_text())
    return known["prefect-kubernetes"]["kubernetes"]["default_base_job_configuration"]


def placeholders(value) -> set[str]:
    return set(re.findall(r"{{\s*(\w+)\s*}}", json.dumps(value)))


def filled(template, given: dict):
    """The job that a worker makes of the defaults and `given`; what has no value is left out, as Prefect does."""
    properties = template["variables"]["properties"]
    values = {name: p["default"] for name, p in properties.items() if "default" in p} | given

    def fill(value):
        if isinstance(value, dict):
            return {k: v for k, v in ((k, fill(v)) for k, v in value.items()) if v is not None}
        if isinstance(value, list):
            return [v for v in map(fill, value) if v is not None]
        if isinstance(value, str) and (whole := re.fullmatch(r"{{ (\w+) }}", value)):
            return values.get(whole[1])
        return (
            re.sub(r"{{ (\w+) }}", lambda m: str(values.get(m[1], "")), value)
            if isinstance(value, str)
            else value
        )

    return fill(template["job_configuration"])


def test_the_variables_are_a_schema_and_every_placeholder_is_one_of_them(template):
    jsonschema.Draft202012Validator.check_schema(template["variables"])
    variables = template["variables"]["properties"]
    assert placeholders(template["job_configuration"]) == set(variables)
    for name, variable in variables.items():
        assert variable["title"] and variable["description"], name
        if "default" in variable:
            jsonschema.validate(variable["default"], {**variable, "$defs": {}})


def test_the_worker_knows_every_field(template, workers_own):
    known = workers_own["job_configuration"]
    assert set(template["job_configuration"]) == set(known)
    # What the worker's own template lets a person set can be set here too, resources under plainer names.
    renamed = {"cpu_request", "cpu_limit", "memory_request", "memory_limit"}
    assert set(workers_own["variables"]["properties"]) - renamed <= set(template["variables"]["properties"])


def test_the_job_holds_what_the_worker_asks_of_a_manifest(template):
    job = filled(template, {"name": "rlaif", "command": ["prefect", "flow-run", "execute"], "labels": {}})[
        "job_manifest"
    ]
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    # The worker refuses a manifest without these two, which it looks for in the pod.
    assert pod["parallelism"] == pod["completions"] == 1
    # The names by which the worker finds its container, and the command's place.
    assert container["name"] == "prefect-job" and container["args"][0] == "prefect"
    assert pod["securityContext"]["runAsNonRoot"] and pod["terminationGracePeriodSeconds"] >= 120
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    mounts = {m["name"] for m in container["volumeMounts"]}
    assert mounts == {v["name"] for v in pod["volumes"]}


def test_prefect_takes_the_template_for_a_work_pool(template):
    from prefect.server.schemas.actions import WorkPoolCreate

    pool = WorkPoolCreate(name="charter", type="kubernetes", base_job_template=template)
    assert pool.base_job_template == template


def test_no_secret_stands_in_a_file(template):
    for path in (p for p in DEPLOY.rglob("*") if p.is_file()):
        text = path.read_text()
        assert not re.search(
            r"(password|secret_access_key|api_key|token)\s*[:=]\s*['\"]?\w{6,}", text, re.I
        ), path


def test_the_judges_are_as_many_as_their_service_finds():
    service, judges = yaml.safe_load_all((DEPLOY / "kubernetes" / "judge.yaml").read_text())
    labels = judges["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == judges["spec"]["selector"]["matchLabels"] == labels
    assert judges["spec"]["serviceName"] == service["metadata"]["name"]
    assert (
        service["spec"]["ports"][0]["port"]
        == judges["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"]
    )


def test_the_container_file_copies_what_is_there():
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    assert words[0][0] == "FROM"
    copied = [source for line in words if line[0] == "COPY" for source in line[1:-1]]
    assert {"constitution", "judges", "training", "flows", "microworld"} <= set(copied)
    for source in copied:
        assert (DEPLOY.parent / source).exists(), source
    assert ["USER", "charter"] in words
