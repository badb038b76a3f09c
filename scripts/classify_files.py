"""Asks a pushed model for the classes of image files, with TensorFlow alone, and counts the right answers.

    python scripts/classify_files.py runs/serving/NAME/VERSION FOLDER

FOLDER has a folder of JPEG, PNG, GIF or BMP files for each class, whose name is the right answer. The files
are sent as they are, in any size: the model itself decodes and resizes them.
"""

import sys
from collections import Counter
from pathlib import Path

import tensorflow as tf

_AT_A_TIME = 16  # files in a request


def classify(model_directory: str, files: list[Path]) -> list[str]:
    """Returns the class that the signature `serve_image_bytes` of a SavedModel gives each file."""
    model = tf.saved_model.load(model_directory)
    signature = model.signatures["serve_image_bytes"]
    names: list[str] = []
    for start in range(0, len(files), _AT_A_TIME):
        images = tf.constant([file.read_bytes() for file in files[start : start + _AT_A_TIME]])
        try:
            answers = signature(image_bytes=images)["class_name"].numpy()
        except tf.errors.InvalidArgumentError as error:
            listed = ", ".join(file.name for file in files[start : start + _AT_A_TIME])
            sys.exit(
                f"error: the model cannot decode one of {listed}; expected JPEG, PNG, GIF or BMP. {error}"
            )
        names += [name.decode() for name in answers]
    return names


def main(model_directory: str, folder: str) -> None:
    """Prints the share of right answers, and the wrong answers that are given most often."""
    files = sorted(file for file in Path(folder).glob("*/*") if file.is_file())
    answers = classify(model_directory, files)
    wrong = Counter(
        (file.parent.name, answer)
        for file, answer in zip(files, answers, strict=True)
        if answer != file.parent.name
    )
    right = len(files) - wrong.total()
    print(f"right: {right} of {len(files)} files ({right / len(files):.1%})")
    for (name, answer), count in wrong.most_common(10):
        print(f"  {count} of {name} called {answer}")


if __name__ == "__main__":
    main(*sys.argv[1:])
