"""The KServe example in docs/fleet.md, against the part of its schema that it uses, and against ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from frontend.workers import check, read_description

PAGE = Path(__file__).parents[1] / "docs" / "fleet.md"


def record(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """The schema of an object that has no other properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
# Written by hand after the CustomResourceDefinition serving.kserve.io/v1beta1 of August 2026, without what nobody uses
# here. Kubernetes drops what a schema does not know, so nothing else may be in the example.
INFERENCE_SERVICE = record(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "serving.kserve.io/v1beta1"},
    kind={"const": "InferenceService"},
    metadata=record(("name",), name=TEXT, annotations=TEXTS, labels=TEXTS),
    spec=record(
        ("predictor",),
        predictor=record(
            minReplicas=WHOLE,
            maxReplicas=WHOLE,
            model=record(
                modelFormat=record(("name",), name=TEXT, version=TEXT),
                protocolVersion={"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]},
                runtime=TEXT,
                storageUri=TEXT,
                args={"type": "array", "items": TEXT},
                ports={
                    "type": "array",
                    "items": record(
                        ("containerPort",),
                        containerPort=WHOLE,
                        name=TEXT,
                        protocol={"enum": ["TCP", "UDP", "SCTP"]},
                        hostPort=WHOLE,
                    ),
                },
            ),
        ),
    ),
)


def documents() -> dict[str, dict[str, Any]]:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    return {document["kind"]: document for document in yaml.safe_load_all(block)}


def test_the_inference_service_fits_its_schema() -> None:
    jsonschema.validate(documents()["InferenceService"], INFERENCE_SERVICE)


def test_a_field_that_kserve_does_not_know_is_noticed() -> None:
    document = documents()["InferenceService"]
    document["spec"]["predictor"]["model"]["protocol"] = "grpc"
    with pytest.raises(jsonschema.ValidationError, match="'protocol' was unexpected"):
        jsonschema.validate(document, INFERENCE_SERVICE)


def test_the_service_lists_the_pods_and_the_frontend_asks_for_it() -> None:
    service, inference = documents()["Service"], documents()["InferenceService"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {
        "serving.kserve.io/inferenceservice": inference["metadata"]["name"],
        "component": "predictor",
    }
    (port,) = inference["spec"]["predictor"]["model"]["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["containerPort"]
    (target,) = re.findall(r"COLLAGE_S_CNN_WORKERS=(\S+?)`", PAGE.read_text())
    assert check(target) == f"dns:///{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"


def test_the_description_in_the_page_can_be_used(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```json\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    file = tmp_path / "flowers.json"
    file.write_text(block)
    info = read_description(file)
    assert (info.name, info.size, len(info.labels)) == ("flowers", 224, 3)
    assert info.plain.mean == (0.485, 0.456, 0.406)
