"""deploy/kubernetes and the Helm chart: they render, fit Kubernetes' schemas, and say what the service needs."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.api.metrics.families import FAMILIES, PREFIX
from service.api.settings import Limits, Settings
from tests.deploy.cluster import CHART, MANIFESTS, ROOT, Manifest, Programs, of_kind, pods

EVERYTHING = ("autoscaling.enabled=true", "monitor.enabled=true", "batch.enabled=true")
OF_OPERATORS = {"ServiceMonitor", "InferenceService"}  # their schemas are not Kubernetes' own
SETTINGS = {f"FULLFUNNEL_{name.upper()}" for name in {*Settings.model_fields, *Limits.model_fields} - {"limits"}}
NOTICE_S = 5  # what a cluster may take to see that a pod is not ready any more, beyond its probes


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """helm and kubectl."""
    return Programs(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="module")
def rendered(programs: Programs) -> dict[str, list[Manifest]]:
    """All manifests, by where they come from."""
    return {
        "demo": programs.kustomized("demo"),
        "production": programs.kustomized("production"),
        "chart": programs.templated(),
        "chart with everything": programs.templated(*EVERYTHING),
        "kserve": list(yaml.safe_load_all((MANIFESTS / "kserve.yaml").read_text())),
    }


def _faults(manifest: Manifest) -> str | None:
    """What Kubernetes' schema says against a manifest; strict: unknown fields too."""
    try:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    return None


def test_every_manifest_fits_the_schema_of_its_kind(rendered: dict[str, list[Manifest]]) -> None:
    checked = [one for manifests in rendered.values() for one in manifests if one["kind"] not in OF_OPERATORS]
    assert {f"{one['kind']} {one['metadata']['name']}": _faults(one) for one in checked if _faults(one)} == {}
    assert {one["kind"] for one in checked} == {
        *("Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy", "HorizontalPodAutoscaler"),
        *("CronJob", "Job", "Namespace", "PersistentVolumeClaim"),
    }


@pytest.mark.parametrize("fault", ["unknown", "type", "missing"])
def test_the_schema_sees_a_fault(rendered: dict[str, list[Manifest]], fault: str) -> None:
    broken = copy.deepcopy(of_kind(rendered["production"], "Deployment"))
    container = broken["spec"]["template"]["spec"]["containers"][0]
    if fault == "unknown":
        container["readinessprobe"] = container.pop("readinessProbe")
    elif fault == "type":
        container["ports"][0]["containerPort"] = "8000"
    else:
        del broken["spec"]["selector"]
    assert _faults(broken)


def test_the_chart_passes_helms_own_linter(programs: Programs) -> None:
    result = programs.run("helm", "lint", "--strict", str(CHART))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "value", ["replica=3", "replicas=many", "settings.port=1", "image.repository=", "settings.drain_delay_s=soon"]
)
def test_the_chart_refuses_values_that_it_does_not_know(programs: Programs, value: str) -> None:
    result = programs.run("helm", "template", "release", str(CHART), "--set", value)
    assert result.returncode != 0 and "values don't meet" in result.stderr


def test_every_container_is_confined(rendered: dict[str, list[Manifest]]) -> None:
    seen = [pod for manifests in rendered.values() for pod in pods(manifests)]
    assert len(seen) == 8
    for pod in seen:
        assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]


def _serving(rendered: dict[str, list[Manifest]]) -> Iterator[tuple[Manifest, Manifest, dict[str, str]]]:
    """Pod, container and environment of everything that serves."""
    for manifests in rendered.values():
        for pod in pods(manifests):
            container = pod["containers"][0]
            if container.get("args", [""])[0] == "serve":
                yield pod, container, {one["name"]: one["value"] for one in container["env"]}


def test_a_pod_has_time_to_drain_after_the_cluster_has_noticed(rendered: dict[str, list[Manifest]]) -> None:
    found = list(_serving(rendered))
    assert len(found) == 5
    for pod, container, environment in found:
        delay, stop = (float(environment[f"FULLFUNNEL_{name}_S"]) for name in ("DRAIN_DELAY", "STOP_TIMEOUT"))
        probe = container["readinessProbe"]
        assert delay >= probe["periodSeconds"] * probe.get("failureThreshold", 3) + min(NOTICE_S, delay / 4)
        assert pod["terminationGracePeriodSeconds"] >= delay + stop + 10


def test_every_setting_and_every_port_is_one_that_the_service_has(rendered: dict[str, list[Manifest]]) -> None:
    for _, container, environment in _serving(rendered):
        assert environment.keys() <= SETTINGS
        Settings.read(**{name.removeprefix("FULLFUNNEL_").lower(): value for name, value in environment.items()})
        ports = {port.get("name"): port["containerPort"] for port in container["ports"]}
        assert ports.get("admin") == _number(environment.get("FULLFUNNEL_ADMIN_PORT"))
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            if kind in container:
                probe = container[kind]["httpGet"]
                assert ports.get(probe["port"], probe["port"]) == Settings.model_fields["port"].default
                assert probe["path"] in {"/readyz", "/livez", "/v2/health/ready", "/v2/health/live"}


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def test_what_compose_sets_is_a_setting_of_the_service() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    names = {name for one in services.values() for name in one.get("environment", {}) if name.startswith("FULLFUNNEL_")}
    assert names and names <= SETTINGS


@pytest.mark.parametrize("source", ["demo", "production", "chart", "chart with everything"])
def test_what_is_selected_is_there(rendered: dict[str, list[Manifest]], source: str) -> None:
    manifests = rendered[source]
    deployment = of_kind(manifests, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    assert of_kind(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels
    assert of_kind(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels
    services = [one for one in manifests if one["kind"] == "Service"]
    ports = {port["name"] for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}
    for service in services:
        assert service["spec"]["selector"].items() <= labels
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for one in manifests:
        if one["kind"] == "HorizontalPodAutoscaler":
            assert one["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
            assert "replicas" not in deployment["spec"]
        if one["kind"] == "ServiceMonitor":
            wanted = one["spec"]["selector"]["matchLabels"].items()
            (watched,) = (service for service in services if wanted <= service["metadata"]["labels"].items())
            assert [one["spec"]["endpoints"][0]["port"]] == [
                port["name"] for port in watched["spec"]["ports"] if port["name"] == "admin"
            ]


def test_the_autoscaler_asks_for_what_the_adapter_makes_of_a_metric_that_exists(
    rendered: dict[str, list[Manifest]],
) -> None:
    (rule,) = yaml.safe_load((MANIFESTS / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    for source in ("production", "chart with everything"):
        (metric,) = of_kind(rendered[source], "HorizontalPodAutoscaler")["spec"]["metrics"]
        assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    asked = set(re.findall(r"fullfunnel_\w+", rule["metricsQuery"]))
    histograms = {f"{PREFIX}{one.name}" for one in FAMILIES if one.kind == "histogram"}
    assert {name.rpartition("_")[0] for name in asked} <= histograms
    assert {name.rpartition("_")[2] for name in asked} == {"sum", "count"}


def test_the_chart_gives_the_service_what_the_manifests_give_it(rendered: dict[str, list[Manifest]]) -> None:
    plain, chart = (of_kind(rendered[source], "Deployment") for source in ("production", "chart with everything"))
    first, second = (_without_names(one["spec"]["template"]["spec"]) for one in (plain, chart))
    assert first == second


def _without_names(pod: Manifest) -> Any:
    pod = copy.deepcopy(pod)
    for container in pod["containers"]:
        container["env"] = sorted(container["env"], key=lambda one: str(one["name"]))
        container.pop("image")
        container.pop("imagePullPolicy", None)
    for name in ("serviceAccountName", "topologySpreadConstraints"):
        pod.pop(name)
    return pod


def test_numbers_reach_the_service_as_they_were_written(programs: Programs) -> None:
    manifests = programs.templated("settings.max_body_bytes=4194304", "settings.overlap_ms=0.5", "settings.workers=4")
    (_, _, environment), *_ = _serving({"chart": manifests})
    assert environment["FULLFUNNEL_MAX_BODY_BYTES"] == "4194304" and environment["FULLFUNNEL_WORKERS"] == "4"
    assert environment["FULLFUNNEL_OVERLAP_MS"] == "0.5"


def test_keys_are_a_secret_mounted_whole_so_that_new_ones_are_seen(programs: Programs) -> None:
    manifests = programs.templated("keys.secret=ours", "monitor.enabled=true", "monitor.secret=theirs")
    (pod, container, environment), *_ = _serving({"chart": manifests})
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert environment["FULLFUNNEL_KEYS"] == f"{mounts['keys']['mountPath']}/keys"
    assert "subPath" not in mounts["keys"] and "FULLFUNNEL_INSECURE" not in environment
    (secret,) = (volume["secret"] for volume in pod["volumes"] if volume["name"] == "keys")
    assert secret["secretName"] == "ours"
    (endpoint,) = of_kind(manifests, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "theirs", "key": "key"}
