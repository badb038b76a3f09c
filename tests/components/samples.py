"""Made-up reports, figures and pictures for tests of the page, with any number of classes."""

from __future__ import annotations

import base64
import copy
import io
from typing import Any

import numpy as np
from PIL import Image

from models.corruptions import CELLS, describe

HOSTILE = "<script>alert(1)</script>"  # a class name that would run code if the page did not escape it
_TRICKY_NAMES = ["cat", HOSTILE, "cost in $ | `x`", "Straßenbäume & Büsche", "n" * 60]
# Name of a figure -> width and height in pixels, about those of the real one.
FIGURES = {
    "accuracy_and_loss": (1200, 430),
    "learning_rate": (720, 430),
    "confusion_matrix": (900, 800),
    "confusion_matrix_normalized": (900, 800),
    "per_class": (1200, 480),
    "roc": (720, 720),
    "precision_recall": (720, 720),
    "reliability": (720, 720),
    "risk_coverage": (720, 500),
    "corruptions": (920, 660),
    "corruption_examples": (1150, 850),
    "trials": (720, 430),
    "parallel_coordinates": (720, 430),
}


def trial(number: int, learning_rate: float, batch_size: int, score: float | None) -> dict[str, Any]:
    """Returns a row of `trials`; a trial without a score has failed."""
    return {
        "trainer.learning_rate": learning_rate,
        "trainer.batch_size": batch_size,
        "trial": number,
        "state": "failed" if score is None else "complete",
        "score": score,
        "epochs": 0 if score is None else 2,
        "images": 0 if score is None else 16000,
        "seconds": 21.0,
        "reason": "training diverged" if score is None else None,
        "curve": [] if score is None else [score - 0.1, score],
    }


def class_names(number: int) -> list[str]:
    """Returns names of classes; some contain characters that HTML, Markdown or matplotlib interprets."""
    return [*_TRICKY_NAMES, *(f"class {i}" for i in range(len(_TRICKY_NAMES), number))][:number]


def report(number_of_classes: int, seed: int = 0) -> dict[str, Any]:
    """Returns the content of a `metrics.json` in which no part is empty.

    With three classes or more, the last class has no test images.

    Args:
      number_of_classes: at least 2.
      seed: seed of the confusion matrix.
    """
    generator = np.random.default_rng(seed)
    names = class_names(number_of_classes)
    matrix = generator.integers(0, 4, (len(names), len(names))) + np.diag(
        generator.integers(40, 90, len(names))
    )
    if len(names) > 2:
        matrix[-1] = 0
    examples = int(matrix.sum())
    accuracy = float(np.trace(matrix) / examples)
    classes = [_class(name, matrix, i) for i, name in enumerate(names)]
    f1_macro = float(np.mean([c["f1"] for c in classes if c["f1"] is not None]))
    averages = {
        f"{metric}_{average}": f1_macro
        for metric in ("precision", "recall", "f1", "roc_auc", "pr_auc")
        for average in ("macro", "micro", "weighted")
    }
    gates = _gates(names, accuracy)
    return {
        "name": "cifar10",
        "architecture": "cnn",
        "image_size": [32, 32],
        "split": "test",
        "blessed": False,
        "gates": gates,
        "failed_gates": [gate["sentence"] for gate in gates if not gate["passed"]],
        "examples": examples,
        "accuracy": accuracy,
        "top_k_accuracy": 0.98,
        "top_k": 5,
        "loss": 0.61,
        "calibration_error": 0.0421,
        **averages,
        "confidence_level": 0.95,
        "intervals": {
            "accuracy": [accuracy - 0.01, accuracy + 0.01],
            **{f"{name}_macro": [f1_macro - 0.02, f1_macro + 0.02] for name in ("precision", "recall", "f1")},
            "calibration_error": [0.03, 0.05],
        },
        "classes": classes,
        "confusion_matrix": matrix.tolist(),
        "calibration": _bins(examples),
        "calibration_fit": {
            "method": "temperature",
            "temperature": 0.58,
            "at_bound": False,
            "images": 5000,
            "val": {"before": _measured(0.162), "after": _measured(0.021)},
            "evaluated": {"before": _measured(0.17), "after": _measured(0.0421)},
        },
        "abstention": {
            "curve": [_answers(1 - share / 20, share / 20, 1 - share / 200) for share in range(1, 21)],
            "configured": _answers(0.6, 0.93, 0.95),
            "target": {
                "val": {"accuracy": 0.99, "threshold": 0.912, "answered": 0.6, "images": 3000},
                "evaluated": _answers(0.912, 0.61, 0.987),
            },
        },
        "prediction_set": {
            "coverage": 0.95,
            "least_probability": 0.1234,
            "served": True,
            "covered": 0.948,
            "interval": [0.943, 0.952],
            "mean_size": 1.31,
            "single": 0.77,
        },
        "most_confused": _most_confused(matrix, names),
        "slices": [
            _slice("brightness", "dark (under 0.25)", accuracy - 0.08),
            _slice("brightness", "bright (over 0.75)", accuracy),
            _slice("contrast", HOSTILE, accuracy + 0.02),
        ],
        "corruptions": corruptions(accuracy),
        "comparison": _comparison(classes, accuracy),
        "baseline": {"id": "12", "uri": "runs/pipelines/cifar10/Trainer/model/12"},
        "label_errors": [
            {
                "id": f"test/{i:05}",
                "label": names[i % len(names)],
                "suggested": names[(i + 1) % len(names)],
                "label_probability": 0.01 + i / 1000,
                "suggested_probability": 0.98 - i / 1000,
            }
            for i in range(30)
        ],
        "label_error_count": 30,
        "data_findings": {
            "leaked_count": 30,
            "contradictions_count": 1,
            "near_count": 260,
            "repeated": 7,
            "leaked_images": {"test/train": 1200, "test/val": 1, "val/train": 0},
        },
        "views": {
            "views": 6,
            "extra_views_below": 0.9,
            "accuracy": 0.8439,
            "accuracy_of_one_view": 0.8331,
            "looked_again": 0.61,
            "batch": 64,
            "milliseconds": 1.5,
            "milliseconds_of_one_view": 0.4,
        },
        "formats": {
            "images": 10000,
            "available": 26032,
            "left_out": [
                "tflite_int8 is left out: it agrees for 71.00% of the images",
                "onnx is left out: RuntimeError: no <such> op",
            ],
            "models": [
                _format("saved_model", None, 0.9512, 1.0),
                _format("tflite", "formats/model.tflite", 0.9511, 0.9998),
                {**_format("tflite_int8", None, 0.7, 0.71), "problem": "it agrees for 71.00% of the images"},
                {
                    **dict.fromkeys(_format("", "", 0, 0)),
                    "name": "onnx",
                    "problem": "RuntimeError: no <such> op",
                },
            ],
        },
        "history": {"epochs": [_epoch(i) for i in range(8)], "best": 5, "calibration": fitted()},
        "hyperparameters": {
            "trainer.learning_rate": {"value": 0.001, "source": "tuner"},
            "trainer.batch_size": {"value": 128, "source": "tuner"},
            "model.cnn.dropout": {"value": 0.3, "source": "config"},
        },
        "trials": [trial(1, 0.01, 64, 0.71), trial(2, 0.001, 128, 0.78), trial(3, 0.1, 64, None)],
        "search": {
            "algorithm": "space_filling",
            "settings": ["trainer.learning_rate", "trainer.batch_size"],
            "best": 2,
            "best_score": 0.78,
            "interval": [0.742, 0.814],
            "within": 0,
            "importance": {"trainer.batch_size": 0.75, "trainer.learning_rate": 0.25},
            "val_images": 500,
            "seconds": 63.0,
            "estimated_seconds": 60.0,
        },
        "data": {
            "splits": {
                split: {"examples": count * len(names), "classes": [count] * len(names)}
                for split, count in (("train", 4500), ("val", 500), ("test", 60))
            },
            "anomalies": [f"the class {names[-1]} has no test image"],
            "warnings": [f"the model cannot learn these classes, which have no images at all: {names[-1]}"],
        },
        "configuration": [
            {"key": "trainer.epochs", "value": 8, "origin": "quick.yaml"},
            {"key": "evaluation.min_accuracy", "value": 0.5, "origin": "--set"},
            {"key": "tuner.space.trainer.batch_size", "value": [64, 128], "origin": "default"},
            {"key": "model.cnn.dropout", "value": None, "origin": "default"},
        ],
        "environment": {
            "python": "3.10.13",
            "packages": {"tensorflow": "2.16.2", "tfx": "1.16.0"},
            "cpus": 2,
            "gpus": [],
            "peak_memory_bytes": 3 * 2**30,
            "git_commit": "04a8bf1d2c3b4a59687766554433221100ffeedd",
            "git_changes": True,
            "training_seconds": 413.5,
            "precision": "mixed_bfloat16",
        },
        "components": [{"id": "Trainer", "seconds": 430.2}, {"id": "Transform", "seconds": None}],
        "model_card": {
            "intended_use": "Sorting photographs into the classes above.",
            "limits": "Photographs unlike those of the training split are not covered by the figures above.",
            "weights_license": "Apache 2.0",
        },
    }


def corruptions(accuracy: float) -> dict[str, Any]:
    """Returns the `corruptions` of a report; with noise, the model is wrong and sure."""

    def row(accuracy: float, confidence: float) -> dict[str, Any]:
        return {
            "accuracy": accuracy,
            "confidence": confidence,
            "calibration_error": abs(accuracy - confidence),
            "intervals": {"accuracy": [accuracy - 0.02, accuracy + 0.02], "calibration_error": [0.01, 0.09]},
        }

    measured = [
        {
            "name": name,
            "strength": strength,
            "description": describe(name, strength),
            **(row(0.1, 0.765) if name == "noise" else row(accuracy - 0.1 * (1 + index % 3), accuracy)),
        }
        for index, (name, strength) in enumerate(CELLS)
    ]
    return {
        "images": 500,
        "available": 10000,
        "accuracy": float(np.mean([each["accuracy"] for each in measured])),
        "intervals": {"accuracy": [0.5, 0.55]},
        "clean": row(accuracy, accuracy),
        "measured": measured,
        "example": {"label": 1, "predicted": [0, 1, 1] * 7},
    }


def fitted() -> dict[str, Any]:
    """Returns the `calibration` of a `history.json`."""
    return {
        "method": "temperature",
        "temperature": 0.58,
        "at_bound": False,
        "images": 5000,
        "before": _measured(0.162),
        "after": _measured(0.021),
        "abstention": {"accuracy": 0.99, "threshold": 0.912, "answered": 0.6, "images": 3000},
        "prediction_set": {"coverage": 0.95, "least_probability": 0.1234, "served": True},
    }


def _measured(error: float) -> dict[str, Any]:
    intervals = {"loss": [0.3, 0.32], "calibration_error": [error - 0.01, error + 0.01]}
    return {"loss": 0.31, "calibration_error": error, "intervals": intervals}


def _answers(threshold: float, answered: float, accuracy: float) -> dict[str, Any]:
    interval = [accuracy - 0.01, accuracy]
    return {"threshold": threshold, "answered": answered, "accuracy": accuracy, "interval": interval}


def _format(name: str, file: str | None, accuracy: float, agreement: float) -> dict[str, Any]:
    return {
        "name": name,
        "file": file,
        "problem": None,
        "accuracy": accuracy,
        "agreement": agreement,
        "milliseconds": 1.25,
        "bytes": 1_190_000,
    }


def bare(complete: dict[str, Any]) -> dict[str, Any]:
    """Returns a copy of a report in which all optional parts are empty.

    It is the report of a first run without Tuner, gates, slices and mistakes.
    """
    report = copy.deepcopy(complete)
    supports = [row["support"] for row in report["classes"]]
    for row in report["classes"]:
        row |= {"predicted": row["support"], "precision": 1.0, "recall": 1.0, "f1": 1.0}
    report |= {
        "blessed": True,
        "gates": [],
        "failed_gates": [],
        "accuracy": 1.0,
        "confusion_matrix": np.diag(supports).tolist(),
        "most_confused": [],
        "slices": [],
        "corruptions": None,
        "comparison": None,
        "baseline": None,
        "label_errors": [],
        "label_error_count": 0,
        "data_findings": None,
        "views": None,
        "formats": None,
        "history": {"epochs": report["history"]["epochs"][:1], "best": 0, "calibration": None},
        "calibration_fit": None,
        "abstention": {"curve": report["abstention"]["curve"], "configured": None, "target": None},
        "prediction_set": None,
        "trials": [],
        "search": None,
        "components": [{"id": "Trainer", "seconds": None}],
    }
    report["data"]["anomalies"] = report["data"]["warnings"] = []
    report["environment"] |= {"peak_memory_bytes": None, "git_commit": None, "git_changes": None}
    report["model_card"]["weights_license"] = None
    return report


def figures() -> dict[str, bytes]:
    """Returns grey PNGs with the names of the real figures and about their sizes."""
    return {
        name: _png(np.full((height, width, 3), 240, np.uint8)) for name, (width, height) in FIGURES.items()
    }


def no_pictures() -> dict[str, list[dict[str, Any]]]:
    """Returns the pictures of a report that shows no images."""
    galleries = ("classes", "mistakes", "confused", "label_errors", "leaked", "contradictions", "near")
    return {name: [] for name in galleries}


def pictures(report: dict[str, Any], seed: int = 0) -> dict[str, list[Any]]:
    """Returns the maximum number of pictures of a report, all of noise, which PNG cannot compress.

    The last of the mistakes has no id of its own, and the first of them is also a likely label error.
    """
    generator = np.random.default_rng(seed)
    height, width = report["image_size"]

    def image() -> str:
        png = _png(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        return "data:image/png;base64," + base64.b64encode(png).decode()

    pairs = report["most_confused"]
    names = [c["name"] for c in report["classes"]]

    def found(split: str, number: int, label: int) -> dict[str, Any]:
        # A real id is the path of a file.
        name = f"{split}/{names[label][:8]} & co/{number:05}.png"
        return {"split": split, "label": names[label], "id": name, "image": image()}

    return {
        "classes": [{"name": c["name"], "images": [image() for _ in range(4)]} for c in report["classes"]],
        "mistakes": [
            {
                "id": f"test/{i:05}",
                "own_id": f"test/{i:05}" if i < 23 else "",
                "actual": pairs[i % len(pairs)]["actual"],
                "predicted": pairs[i % len(pairs)]["predicted"],
                "confidence": 0.999 - i / 100,
                "image": image(),
                "attribution": image(),
            }
            for i in range(24)
        ],
        "confused": [{**pair, "images": [image() for _ in range(6)]} for pair in pairs[:6]],
        "label_errors": [
            {**error, "own_id": error["id"], "image": image()} for error in report["label_errors"][:24]
        ],
        "leaked": [[found("test", i, 0), found("train", i, 0)] for i in range(30)],
        "contradictions": [[found("train", i, i % 2) for i in range(40, 52)]],
        "near": [
            {"first": found("test", i, 1), "second": found("val", i, i % 2), "distance": i / 1000}
            for i in range(60, 160)
        ],
    }


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


def _class(name: str, matrix: np.ndarray, index: int) -> dict[str, Any]:
    right, support, predicted = matrix[index, index], matrix[index].sum(), matrix[:, index].sum()
    values = {
        "precision": float(right / predicted) if support else None,
        "recall": float(right / support) if support else None,
        "f1": float(2 * right / (support + predicted)) if support else None,
    }
    return {
        "name": name,
        "support": int(support),
        "predicted": int(predicted),
        **values,
        "roc_auc": 0.97 if support else None,
        "pr_auc": 0.88 if support else None,
        "intervals": {
            key: None if value is None else [value - 0.05, min(1.0, value + 0.05)]
            for key, value in values.items()
        },
    }


def _gates(names: list[str], accuracy: float) -> list[dict[str, Any]]:
    floors = [
        {
            "name": "recall",
            "class": name,
            "setting": "evaluation.min_recall",
            "kind": "floor",
            "value": 0.71,
            "limit": 0.6,
            "passed": True,
            "sentence": f"recall of {name} 0.7100 is at least evaluation.min_recall, 0.6000",
        }
        for name in names
    ]
    return [
        {
            "name": "accuracy",
            "class": None,
            "setting": "evaluation.min_accuracy",
            "kind": "floor",
            "value": accuracy,
            "limit": 0.1,
            "passed": True,
            "sentence": f"accuracy {accuracy:.4f} is at least evaluation.min_accuracy, 0.1000",
        },
        *floors,
        {
            "name": "accuracy",
            "class": None,
            "setting": "evaluation.max_accuracy_drop",
            "kind": "drop",
            "value": 0.021,
            "limit": 0.01,
            "passed": False,
            "sentence": "accuracy is 0.0210 under the last blessed model's; 0.0100 is allowed",
        },
    ]


def _bins(examples: int) -> list[dict[str, Any]]:
    """Returns 15 bins with examples in the last two only: mean confidence 0.9, accuracy 0.85."""
    edges = np.linspace(0, 1, 16)
    filled = {13: (examples // 2, 0.85, 0.8), 14: (examples // 2, 0.95, 0.9)}
    bins = []
    for i in range(15):
        count, confidence, accuracy = filled.get(i, (0, None, None))
        bins.append(
            {
                "lower": float(edges[i]),
                "upper": float(edges[i + 1]),
                "count": count,
                "confidence": confidence,
                "accuracy": accuracy,
            }
        )
    return bins


def _most_confused(matrix: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
    mistakes = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:10]
    pairs = [tuple(int(i) for i in np.unravel_index(cell, matrix.shape)) for cell in order]
    return [
        {
            "actual": names[actual],
            "predicted": names[predicted],
            "count": int(mistakes[actual, predicted]),
            "share": float(mistakes[actual, predicted] / matrix[actual].sum()),
        }
        for actual, predicted in pairs
        if mistakes[actual, predicted]
    ]


def _slice(feature: str, value: str, accuracy: float) -> dict[str, Any]:
    return {
        "feature": feature,
        "value": value,
        "examples": 120,
        "accuracy": accuracy,
        "interval": [accuracy - 0.03, accuracy + 0.03],
        "f1_macro": accuracy,
        "loss": 0.7,
    }


def _comparison(classes: list[dict[str, Any]], accuracy: float) -> dict[str, Any]:
    names = ("accuracy", "precision_macro", "recall_macro", "f1_macro", "loss", "calibration_error")
    changed = [
        {
            "id": f"test/{i:05}",
            "label": classes[i % 2]["name"],
            "a": classes[1 - i % 2]["name"],
            "b": classes[i % 2]["name"],
            "confidence_b": 0.99 - i / 100,
        }
        for i in range(40)
    ]
    return {
        "examples": sum(c["support"] for c in classes),
        "only_a": 3,
        "only_b": 0,
        "metrics": [
            {
                "name": name,
                "a": accuracy + 0.021,
                "b": accuracy,
                "difference": -0.021,
                "interval": [-0.03, -0.01],
            }
            for name in names
        ],
        "mcnemar": {"only_a_right": 40, "only_b_right": 19, "p_value": 0.0086},
        "classes": [
            {
                "name": c["name"],
                "support": c["support"],
                "recall_a": 0.8 if c["support"] else None,
                "recall_b": c["recall"],
                "recall_difference": None if c["recall"] is None else c["recall"] - 0.8,
                "recall_interval": None if c["recall"] is None else [c["recall"] - 0.85, c["recall"] - 0.75],
                **{
                    f"{key}_{suffix}": 0.0 if c["support"] else None
                    for key in ("precision", "f1")
                    for suffix in ("a", "b", "difference")
                },
            }
            for c in classes
        ],
        "became_wrong": changed,
        "became_right": changed[:19],
    }


def _epoch(index: int) -> dict[str, Any]:
    return {
        "phase": "training",
        "epoch": index + 1,
        "loss": 1.6 - 0.15 * index,
        "accuracy": 0.41 + 0.05 * index,
        "val_loss": 1.5 - 0.12 * index,
        "val_accuracy": 0.45 + 0.04 * index,
        "learning_rate": 0.001 * 0.7**index,
        "seconds": 51.2,
        "images_per_second": 878.0,
        "data_wait": 0.006,
    }
