"""deploy/kubernetes against the schemas of Kubernetes, and against the programs, images and compose file."""

import importlib.util
import re
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from coin_pipeline.settings import PipelineSettings
from receiver.app import create_app
from receiver.settings import ReceiverSettings
from tests.compose.project import PROJECT

DOCKERFILE = (PROJECT / "Dockerfile").read_text()
MANIFESTS = PROJECT / "deploy" / "kubernetes"
VERSIONS = ["1.34", "1.35", "1.36", "1.37"]
KINDS = {"Job", "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"}


def load(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((MANIFESTS / name).read_text()))


KUSTOMIZATION = load("kustomization.yaml")[0]
RESOURCES = {document["kind"]: document for name in KUSTOMIZATION["resources"] for document in load(name)}
VALUES = load("dagster-values.yaml")[0]


def container_of(kind: str) -> dict[str, Any]:
    (container,) = RESOURCES[kind]["spec"]["template"]["spec"]["containers"]
    return dict(container)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_manifest_is_valid(kind: str, version: str) -> None:
    kubernetes_validate.validate(RESOURCES[kind], version, strict=True)


def test_a_mistake_in_a_manifest_is_found() -> None:
    container = {**container_of("Deployment"), "readynessProbe": {}}
    wrong = yaml.safe_load(yaml.safe_dump(RESOURCES["Deployment"]))
    wrong["spec"]["template"]["spec"]["containers"] = [container]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_all_that_is_delivered_is_there_and_images_are_targets_of_the_dockerfile() -> None:
    assert set(RESOURCES) == KINDS
    targets = {f"coin-{target}" for target in re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, flags=re.MULTILINE)}
    assert {image["name"] for image in KUSTOMIZATION["images"]} == {
        container_of(kind)["image"] for kind in ("Job", "Deployment")
    }
    assert {image["name"] for image in KUSTOMIZATION["images"]} <= targets


def test_everything_of_the_receiver_points_at_its_pods() -> None:
    labels = RESOURCES["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        RESOURCES["Deployment"]["spec"]["selector"]["matchLabels"],
        RESOURCES["Service"]["spec"]["selector"],
        RESOURCES["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        RESOURCES["Deployment"]["spec"]["template"]["spec"]["topologySpreadConstraints"][0]["labelSelector"][
            "matchLabels"
        ],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    target = RESOURCES["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", RESOURCES["Deployment"]["metadata"]["name"])
    assert RESOURCES["Service"]["spec"]["ports"][0]["targetPort"] == container_of("Deployment")["ports"][0]["name"]


def test_the_probes_ask_routes_of_the_receiver_on_the_port_it_listens_on() -> None:
    container = container_of("Deployment")
    app = create_app(ReceiverSettings(database_url="postgresql://nobody@127.0.0.1:1/nothing"))
    routes = {rule.rule for rule in app.url_map.iter_rules()}
    probes = [container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert {probe["path"] for probe in probes} <= routes
    assert {probe["port"] for probe in probes} == {container["ports"][0]["name"]}
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert int(environment["RECEIVER_PORT"]) == container["ports"][0]["containerPort"]


def test_the_most_receivers_leave_connections_to_the_others() -> None:
    environment = {variable["name"]: variable["value"] for variable in container_of("Deployment")["env"]}
    pods = RESOURCES["HorizontalPodAutoscaler"]["spec"]["maxReplicas"] + 1  # one more while they are replaced
    assert pods * int(environment["RECEIVER_THREADS"]) <= 60  # of PostgreSQL's 100


def test_nothing_runs_as_root_and_everything_is_limited() -> None:
    for kind in ("Job", "Deployment"):
        pod, container = RESOURCES[kind]["spec"]["template"]["spec"], container_of(kind)
        assert pod["securityContext"]["runAsNonRoot"]
        assert {str(pod["securityContext"]["runAsUser"])} == set(re.findall(r"^USER (\w+)$", DOCKERFILE, re.MULTILINE))
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_the_migration_is_the_one_of_compose() -> None:
    compose = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
    assert container_of("Job")["args"] == compose["services"]["migrate"]["command"]


def test_the_readme_fills_every_secret_with_settings_that_the_programs_read() -> None:
    readme = (MANIFESTS / "README.md").read_text()
    secrets = {
        name: set(re.findall(r"--from-literal=([\w-]+)=", text))
        for name, text in re.findall(r"create secret generic ([\w-]+)((?:.*\\\n)*.*)", readme)
    }
    compose = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
    deployment = VALUES["dagster-user-deployments"]["deployments"][0]
    assert set(secrets) == {
        *(each["secretRef"]["name"] for kind in ("Job", "Deployment") for each in container_of(kind)["envFrom"]),
        *(each["name"] for each in deployment["envSecrets"]),
        VALUES["global"]["postgresqlSecretName"],
    }
    secret = {name for name in compose["services"]["migrate"]["environment"] if re.search("URL|PASSWORD", name)}
    assert secrets["coins-migrate"] == secret
    assert secrets["coins-receiver"] <= {name.upper() for name in ReceiverSettings.model_fields}
    assert secrets["coins-pipeline"] <= {name.upper() for name in PipelineSettings.model_fields}


def test_the_chart_serves_the_pipeline_without_failing_runs_that_are_pods() -> None:
    deployment = VALUES["dagster-user-deployments"]["deployments"][0]
    option, module = deployment["dagsterApiGrpcArgs"]
    assert option == "--module-name"
    assert importlib.util.find_spec(module)
    assert module != "coin_pipeline.code_server"
    assert VALUES["runLauncher"]["type"] == "K8sRunLauncher"
    assert not VALUES["postgresql"]["enabled"]


def test_the_charts_resources_are_kubernetes_resources() -> None:
    deployment = VALUES["dagster-user-deployments"]["deployments"][0]
    run = VALUES["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    for resources in (
        deployment["resources"],
        run["containerConfig"]["resources"],
        VALUES["dagsterDaemon"]["resources"],
        VALUES["dagsterWebserver"]["resources"],
    ):
        job = yaml.safe_load(yaml.safe_dump(RESOURCES["Job"]))
        job["spec"]["template"]["spec"]["containers"][0]["resources"] = resources
        job["spec"] |= run["jobSpecConfig"]
        kubernetes_validate.validate(job, VERSIONS[-1], strict=True)


def test_the_chart_has_the_version_and_the_settings_of_this_dagster() -> None:
    pins = dict(re.findall(r"^([\w-]+)==(\S+)", (PROJECT / "requirements.txt").read_text(), flags=re.MULTILINE))
    assert f"--version {pins['dagster']}" in (MANIFESTS / "README.md").read_text()
    instance = yaml.safe_load((PROJECT / "stack" / "dagster.yaml").read_text())
    daemon = VALUES["dagsterDaemon"]
    assert daemon["runRetries"]["enabled"] == instance["run_retries"]["enabled"]
    assert daemon["runMonitoring"]["enabled"] == instance["run_monitoring"]["enabled"]
    assert daemon["runMonitoring"]["pollIntervalSeconds"] == instance["run_monitoring"]["poll_interval_seconds"]
    assert VALUES["retention"]["sensor"]["purgeAfterDays"] == instance["retention"]["sensor"]["purge_after_days"]
    assert VALUES["telemetry"]["enabled"] == instance["telemetry"]["enabled"]
