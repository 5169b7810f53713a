import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.pages import MODEL_CARD, front_matter, model_card, write_model_card
from worker.model.encoding import Encoding
from worker.model.manifest import Base, Manifest

MEASURED = {
    "n": 24801,
    "accuracy": 0.925769122212814,
    "interval": [0.9224, 0.9290],
    "macro_f1": 0.9257,
    "auroc": 0.9791,
    "ece": 0.00001,
}
MANIFEST = Manifest(
    name="minilm-imdb",
    base=Base("sentence-transformers/all-MiniLM-L6-v2", "", "0" * 64),
    labels=("negative", "positive"),
    encoding=Encoding(),
    files={},
    probes=(),
    training={"license": "apache-2.0", "reviews": 23658},
    languages=("en",),
    metrics={"epoch": 3, "validation_accuracy": 0.917335, "IMDB test": MEASURED},
)
HOSTILE = [
    "a: b",
    '"',
    "'",
    "---",
    "\n---\n",
    "#",
    "|",
    "- x",
    "null",
    "1e5",
    "\x00",
    "\x85",
    "\u2028",
    "\ufeff",
    "😀",
]


def changed(**fields: Any) -> Manifest:
    return dataclasses.replace(MANIFEST, **fields)


def matter_of(card: str) -> dict[str, Any]:
    matter: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return matter


def test_the_front_matter_is_yaml_that_says_what_the_adapter_is() -> None:
    matter = matter_of(model_card(MANIFEST))
    assert matter == {
        "base_model": "sentence-transformers/all-MiniLM-L6-v2",
        "library_name": "peft",
        "license": "apache-2.0",
        "language": ["en"],
        "pipeline_tag": "text-classification",
        "tags": ["lora", "sentiment-analysis", "loracle"],
        "metrics": ["accuracy", "f1", "roc_auc", "ece"],
        "model-index": [
            {
                "name": "minilm-imdb",
                "results": [
                    {
                        "task": {"type": "text-classification", "name": "Text classification"},
                        "dataset": {"type": "IMDB test", "name": "IMDB test"},
                        "metrics": [
                            {"type": "accuracy", "value": 0.925769, "name": "Accuracy"},
                            {"type": "f1", "value": 0.9257, "name": "Macro F1"},
                            {"type": "roc_auc", "value": 0.9791, "name": "AUROC"},
                            {"type": "ece", "value": 0.00001, "name": "Expected calibration error"},
                        ],
                    }
                ],
            }
        ],
    }


def test_the_hub_reads_the_results_of_the_card() -> None:
    data = ModelCard(model_card(MANIFEST)).data
    assert data.model_name == "minilm-imdb"
    results = data.eval_results
    assert [(one.metric_type, one.metric_value) for one in results][:2] == [
        ("accuracy", 0.925769),
        ("f1", 0.9257),
    ]
    assert all(isinstance(one, EvalResult) and one.dataset_name == "IMDB test" for one in results)
    assert all(one.task_type == "text-classification" for one in results)


def test_licence_and_language_are_told_only_where_the_manifest_names_them() -> None:
    matter = matter_of(model_card(changed(training={}, languages=())))
    assert "license" not in matter
    assert "language" not in matter


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), True, "0.9"])
def test_an_undefined_figure_is_left_out(value: object) -> None:
    card = model_card(changed(metrics={"test": {**MEASURED, "auroc": value}}))
    [result] = matter_of(card)["model-index"][0]["results"]
    assert [one["type"] for one in result["metrics"]] == ["accuracy", "f1", "ece"]
    assert "nan" not in card.lower()


def test_an_adapter_that_was_never_measured_has_a_card_without_results() -> None:
    card = model_card(changed(metrics={"epoch": 1, "validation_accuracy": 0.9}))
    assert "model-index" not in matter_of(card)
    assert "| validation (kept aside; chose the epoch) |" in card
    ModelCard(card)


@settings(deadline=None)
@given(st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"])))
def test_no_name_breaks_out_of_the_front_matter(text: str) -> None:
    manifest = changed(
        name=text,
        base=Base(text, "", ""),
        metrics={text: MEASURED, "b": MEASURED},
        training={"license": text},
    )
    card = model_card(manifest)
    matter, _, _ = card.removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(matter) == front_matter(manifest)
    assert ModelCard(card).data.base_model == text


def test_the_card_says_that_validation_chose_the_epoch() -> None:
    card = model_card(changed(metrics={"validation_accuracy": 0.92, "validation": MEASURED}))
    assert "| validation (kept aside; chose the epoch) | 24,801 | 92.6% |" in card
    assert card.count("chose the epoch") == 1


def test_a_name_with_a_line_break_stays_in_its_heading_and_cell() -> None:
    card = model_card(changed(name="a\n# b", metrics={"c\n| d": MEASURED}))
    assert "\n# a # b\n" in card
    assert "\n| c \\| d | 24,801 |" in card


def test_files_that_lie_beside_the_card_are_linked(tmp_path: Path) -> None:
    write_model_card(tmp_path, MANIFEST)
    assert "](" not in (tmp_path / MODEL_CARD).read_text()
    names = ("curves.png", "reliability.png", "metrics.json", "evaluation.md")
    for name in names:
        (tmp_path / name).write_text("")
    write_model_card(tmp_path, MANIFEST)
    card = (tmp_path / MODEL_CARD).read_text()
    assert all(f"]({name})" in card for name in names)
    assert not list(tmp_path.glob(".*"))


def test_a_lone_surrogate_in_a_name_can_be_written(tmp_path: Path) -> None:
    write_model_card(tmp_path, changed(name="a\ud800b"))
    assert yaml.safe_load((tmp_path / MODEL_CARD).read_text().split("---\n")[1])["library_name"] == "peft"
