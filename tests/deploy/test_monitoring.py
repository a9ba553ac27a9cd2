"""Alert rules and the dashboard: valid, tested by promtool, and about metrics that there are."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from deploy.debian import NotAvailable, command
from service.api.metrics.families import FAMILIES, PREFIX, Family

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())
TARGETS = [(panel["title"], target) for panel in DASHBOARD["panels"] for target in panel["targets"]]
RULES = (PROMETHEUS / "rules.yml").read_text()
ALERTS = re.findall(r"alert: (\w+)", RULES)


def names_of(family: Family) -> dict[str, set[str]]:
    """The names of its samples, with the labels of each."""
    name, labels = PREFIX + family.name, {*family.labels, "instance", "job"}
    if family.kind == "counter":
        return {f"{name}_total": labels}
    if family.kind == "gauge":
        return {name: labels}
    return {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}


SAMPLES = {name: labels for family in FAMILIES for name, labels in names_of(family).items()}


def check(query: str) -> list[str]:
    """What a query asks for and there is not."""
    wrong = [name for name in re.findall(rf"{PREFIX}\w+", query) if name not in SAMPLES]
    for name, matchers in re.findall(rf"({PREFIX}\w+){{([^}}]*)}}", query):
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        wrong += [f"{name}.{label}" for label in asked - SAMPLES.get(name, set())]
    known = set().union(*(SAMPLES[name] for name in re.findall(rf"{PREFIX}\w+", query) if name in SAMPLES))
    for group in re.findall(r"(?:by|on) \(([^)]*)\)", query):
        wrong += [label for label in group.split(", ") if label not in known]
    return wrong


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_panel_asks_for_metrics_and_labels_that_there_are(title: str, target: dict[str, str]) -> None:
    assert check(target["expr"]) == []
    assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= set(re.findall(r"\w+", target["expr"])) | {
        label for name in re.findall(rf"{PREFIX}\w+", target["expr"]) for label in SAMPLES[name]
    }


def test_the_check_finds_what_there_is_not() -> None:
    assert check("rate(fullfunnel_request_total[5m])") == ["fullfunnel_request_total"]
    assert check('fullfunnel_requests_total{path="/"}') == ["fullfunnel_requests_total.path"]
    assert check("sum by (model) (fullfunnel_requests_total)") == ["model"]


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for _, target in TARGETS for name in re.findall(rf"{PREFIX}\w+", target["expr"])}
    assert [family.name for family in FAMILIES if not shown & set(names_of(family))] == ["drift_runs"]


def test_every_alert_asks_for_what_there_is_and_has_its_section_and_its_test() -> None:
    assert check(re.sub(r"\n\s+", " ", RULES)) == []
    page, tests = (ROOT / "docs" / "operations.md").read_text(), (PROMETHEUS / "rules_test.yml").read_text()
    for alert in ALERTS:
        assert f"### {alert}\n" in page and f"alertname: {alert}\n" in tests
        fires = re.search(rf"alertname: {alert}\n\s+exp_alerts:\n", tests)
        assert fires is not None, f"no test in which {alert} fires"


@pytest.fixture(scope="module")
def tool() -> list[str]:
    try:
        return command("promtool")
    except NotAvailable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize(
    "arguments", ["check config prometheus.yml", "check rules rules.yml", "test rules rules_test.yml"]
)
def test_promtool_has_nothing_to_say_against(tool: list[str], arguments: str) -> None:
    done = subprocess.run([*tool, *arguments.split()], cwd=PROMETHEUS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_of_the_rules_can_fail(tool: list[str], tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(RULES.replace("> 0.01\n", "> 0.5\n"))
    (tmp_path / "rules_test.yml").write_text((PROMETHEUS / "rules_test.yml").read_text())
    done = subprocess.run([*tool, "test", "rules", "rules_test.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0 and "FullfunnelRefuses" in done.stdout + done.stderr
