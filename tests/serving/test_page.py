"""The page of the server, in a browser."""

import base64
import contextlib
import io
import json
import re
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests import browser
from tests.serving import samples

PAGE = Path(__file__).resolve().parents[2] / "serving/page"
# Class names are not under the control of the page.
NAMES = ("dark <b>&amp;", "bright")
SIDE = 4


class Explained(samples.Brightness):
    """Names the best classes, unless it is unsure, and looks at the upper half of images."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def predict(self, image_bytes):
        filled = tf.reduce_all(tf.strings.length(image_bytes) > 0)
        # Otherwise the decoder, which refuses empty images as well, may be the first.
        with tf.control_dependencies([tf.debugging.Assert(filled, ["an image is empty"])]):
            checked = tf.identity(image_bytes)
        outputs = self._decode(checked)
        best = tf.math.top_k(outputs["probabilities"], 2)
        abstained = best.values[:, 0] < 0.6
        return {
            **outputs,
            "class_name": tf.where(abstained, "", outputs["class_name"]),
            "abstained": abstained,
            "top_k_names": tf.gather(self._names, best.indices),
            "top_k_probabilities": best.values,
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def explain(self, image_bytes):
        def shrink(encoded):
            image = tf.io.decode_image(encoded, 3, expand_animations=False)
            image.set_shape([None, None, 3])
            return tf.cast(tf.image.resize(image, [SIDE, SIDE]), tf.uint8)

        images = tf.map_fn(shrink, image_bytes, tf.uint8)
        row = tf.cast(tf.range(SIDE) < SIDE // 2, tf.float32)[tf.newaxis, :, tf.newaxis]
        return {"image": images, "heat": tf.ones(tf.shape(images)[:3]) * row}


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """A SavedModel with examples that explains its answers."""
    folder = tmp_path_factory.mktemp("explained") / "saved"
    module = Explained(7, list(NAMES))
    signatures = {"serve_image_bytes": module.predict, "explain_image_bytes": module.explain}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    examples = folder / "assets.extra/examples"
    examples.mkdir(parents=True)
    (examples / "dark%20%3Cb%3E&amp;.png").write_bytes(samples.picture(20))
    (examples / "bright.jpg").write_bytes(samples.picture(230, 64, "JPEG"))
    (examples / "notes.txt").write_text("no image")
    (folder / "secret.png").write_bytes(samples.picture(0))
    return folder


@pytest.fixture(scope="module")
def two(explained, saved, tmp_path_factory):
    """A server of two models: `explained`, and the plain `old`, which has neither examples nor heat maps."""
    root = tmp_path_factory.mktemp("models")
    samples.push(explained, root / "explained", 7)
    samples.push(saved[1], root / "old", 1)
    with samples.serve(root) as running:
        yield running


@pytest.fixture(scope="module")
def small(explained, tmp_path_factory):
    """A server that takes one small request at a time."""
    root = tmp_path_factory.mktemp("models")
    samples.push(explained, root / "m", 1)
    with samples.serve(root, max_body=20_000, max_concurrent=1) as running:
        yield running


@contextlib.contextmanager
def opened(chromium, served, size="desktop", refused=(), **options):
    """Opens the page; fails if the browser reports anything but answers with the statuses `refused`."""
    width, height = browser.SIZES[size]
    context = chromium.new_context(viewport={"width": width, "height": height}, **options)
    page = context.new_page()
    page.set_default_timeout(10_000)
    problems, requests, statuses = [], [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda sent: requests.append(sent.url))
    page.on("response", lambda answer: statuses.append(answer.status))
    page.goto(served.url)
    yield page
    context.close()
    unexpected = "|".join(map(str, refused)) or "none"
    assert [text for text in problems if not re.search(f"status of ({unexpected})", text)] == []
    assert {status for status in statuses if status >= 400} == set(refused)
    assert all(url.startswith((f"{served.url}/", "data:", f"blob:{served.url}/")) for url in requests)


def attach(page, data, name="image.png", kind="image/png"):
    page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": data})


def transfer(page, data):
    """Returns the files of a drop or paste."""
    return page.evaluate_handle(
        """bytes => { const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
        return transfer; }""",
        list(data),
    )


def wait_for_answer(page, name, share):
    page.wait_for_function(
        "text => document.querySelector('#best').textContent === text", arg=f"{name}, {share}"
    )
    assert page.is_visible("#answer")
    assert page.text_content("#status") == f"Answer: {name}, {share}"


def colors(page, figure):
    """Returns the pixels of a canvas, uint8 [height, width, 4]."""
    page.wait_for_selector(f"#{figure} canvas")
    width, height, data = page.evaluate(
        """selector => { const {canvas} = document.querySelector(selector).getContext("2d");
        return [canvas.width, canvas.height,
                [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]]; }""",
        f"#{figure} canvas",
    )
    return np.array(data, np.uint8).reshape(height, width, 4)


@pytest.mark.parametrize("size", browser.SIZES)
def test_a_file_is_classified_and_explained(chromium, two, size):
    with opened(chromium, two, size) as page:
        attach(page, samples.picture(51), "evening.png")
        wait_for_answer(page, NAMES[0], "80.0 %")
        rows = [text.split("\n") for text in page.locator("#classes li").all_inner_texts()]
        assert [[part for part in row if part] for row in rows] == [
            [NAMES[0], "80.0 %"],
            ["bright", "20.0 %"],
        ]
        bars = page.locator(".bar").evaluate_all(
            "bars => bars.map(bar => bar.firstChild.clientWidth / bar.clientWidth)"
        )
        assert bars == pytest.approx([0.8, 0.2], abs=0.01)
        assert (page.text_content("#name"), page.text_content("#version")) == ("explained", "7")
        seen, heat = colors(page, "seen"), colors(page, "heat")
        np.testing.assert_array_equal(seen, [[[51, 51, 51, 255]] * SIDE] * SIDE)
        # Without heat the image is grey; where it is 1, three quarters are the brightest colour.
        np.testing.assert_array_equal(heat[2:, :, :3], seen[2:, :, :3])
        hot = 0.25 * 51 + 0.75 * np.array([252, 255, 164])
        np.testing.assert_allclose(heat[:2, :, :3], np.broadcast_to(hot, (2, SIDE, 3)), atol=0.5)
        assert page.text_content("#original figcaption") == "evening.png"
        browser.check_layout(page)


def test_an_answer_that_the_model_is_unsure_of_is_shown_as_such(chromium, two):
    grey = samples.picture(140)
    with opened(chromium, two) as page:
        attach(page, grey)
        wait_for_answer(page, "Unsure; perhaps bright", "54.9 %")
    body = {
        "signature_name": "serve_image_bytes",
        "instances": [{"b64": base64.b64encode(each).decode()} for each in (grey, samples.picture(255))],
    }
    counter = 'serving_abstained_images_total{model="explained",version="7"}'

    def abstained():
        lines = two.http.get("/metrics").text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(counter))

    before = abstained()
    answers = two.http.post("/v1/models/explained:predict", json=body).json()["predictions"]
    assert [(each["abstained"], each["class_name"]) for each in answers] == [(True, ""), (False, "bright")]
    assert abstained() == before + 1


def test_drop_and_paste(chromium, two):
    with opened(chromium, two) as page:
        page.dispatch_event("main", "drop", {"dataTransfer": transfer(page, samples.picture(255))})
        wait_for_answer(page, "bright", "100.0 %")
        assert page.text_content("#original figcaption") == "dropped.png"
        page.get_by_role("button", name="bright").focus()
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.evaluate(
            """bytes => navigator.clipboard.write([new ClipboardItem(
            {"image/png": new Blob([new Uint8Array(bytes)], {type: "image/png"})})])""",
            list(samples.picture(0)),
        )
        page.keyboard.press("Control+V")
        wait_for_answer(page, NAMES[0], "100.0 %")
        # The example is not framed any more.
        assert page.evaluate("document.activeElement === document.body")
        page.evaluate("navigator.clipboard.writeText('words')")
        page.keyboard.press("Control+V")
        page.wait_for_selector("text=The clipboard holds no image.")


def test_examples_by_keyboard_and_the_choice_of_a_model(chromium, two):
    with opened(chromium, two) as page:
        example = page.get_by_role("button", name=NAMES[0])
        example.focus()
        page.keyboard.press("Enter")
        wait_for_answer(page, NAMES[0], "92.2 %")
        assert page.get_attribute("#picture", "alt") == f"Example of the class {NAMES[0]}"
        browser.check_layout(page)
        page.wait_for_selector("#heat")
        # A model from before: one class with its probability, neither examples nor heat.
        page.get_by_label("Model").select_option("old")
        wait_for_answer(page, "dark", "92.2 %")
        assert page.text_content("#rest") == "1 other class: 7.8 %"
        assert page.text_content("#version") == "1"
        page.wait_for_load_state("networkidle")
        assert not page.is_visible("#heat")
        assert not page.is_visible("#examples")
        assert page.text_content("#looking") == ""


def test_files_that_the_server_refuses(chromium, small):
    with opened(chromium, small, refused=[400, 413]) as page:
        attach(page, samples.picture(51)[:60])
        page.wait_for_selector("text=The model cannot read this file.")
        assert "The server says: " in page.text_content("[role=alert]")
        assert not page.is_visible("#answer")
        assert not page.is_visible("#again")
        attach(page, b"")
        page.wait_for_selector("text='The server says: an image is empty'")
        noise = np.random.default_rng(0).integers(0, 256, [100, 100, 3], np.uint8)
        large = io.BytesIO()
        Image.fromarray(noise).save(large, "PNG")
        attach(page, large.getvalue())
        page.wait_for_selector("text=This image is too large for the server.")
        assert "at most 20,000 bytes" in page.text_content("[role=alert]")
        # What went wrong is gone with the next image.
        attach(page, samples.picture(51))
        wait_for_answer(page, NAMES[0], "80.0 %")
        assert page.text_content("[role=alert]") == ""


def test_a_busy_server(chromium, small):
    def status():
        return small.http.post("/v1/models/m:predict", json={}).status_code

    with opened(chromium, small, refused=[429]) as page:
        page.wait_for_load_state("networkidle")
        small.wait_until(lambda: status() == 400)  # nothing is left of other tests
        address = ("127.0.0.1", int(small.url.rpartition(":")[2]))
        with contextlib.closing(socket.create_connection(address)) as slow:
            # A body that does not arrive takes the only place.
            slow.sendall(b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{")
            time.sleep(0.2)  # otherwise the next request may arrive first
            assert status() == 429
            attach(page, samples.picture(51))
            page.wait_for_selector("text=The server is busy. Try again in 1 s.")
        small.wait_until(lambda: status() == 400)
        page.get_by_role("button", name="Try again").click()
        wait_for_answer(page, NAMES[0], "80.0 %")
        assert not page.is_visible("#again")


def test_without_a_model_the_page_waits_for_one(chromium, explained, tmp_path):
    with samples.serve(tmp_path, ready=False) as served, opened(chromium, served) as page:
        page.wait_for_selector("text=No model is loaded yet. This page waits for one.")
        attach(page, samples.picture(51))
        samples.push(explained, tmp_path / "m", 1)
        wait_for_answer(page, NAMES[0], "80.0 %")


def test_examples_of_the_answering_version(two):
    answer = two.http.get("/v1/models/explained/examples")
    assert answer.json() == {
        "version": "7",
        "examples": [
            {"file": "bright.jpg", "class_name": "bright"},
            {"file": "dark%20%3Cb%3E&amp;.png", "class_name": NAMES[0]},
        ],
    }
    assert two.http.get("/v1/models/old/examples").json() == {"version": "1", "examples": []}
    answer = two.http.get("/v1/models/explained/examples/bright.jpg")
    assert (answer.content, answer.headers["content-type"]) == (
        samples.picture(230, 64, "JPEG"),
        "image/jpeg",
    )
    for path in ("no/examples", "explained/examples/notes.txt", "explained/examples/..%2F..%2Fsecret.png"):
        answer = two.http.get(f"/v1/models/{path}")
        assert (answer.status_code, list(answer.json())) == (404, ["error"])


def test_an_image_without_a_signature_is_classified_not_explained(two):
    sent = {"name": "image_bytes", "datatype": "BYTES", "shape": [1]}
    blob = len(image := samples.picture(230)).to_bytes(4, "little") + image
    head = json.dumps({"inputs": [{**sent, "parameters": {"binary_data_size": len(blob)}}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = two.http.post("/v2/models/explained/infer", content=head + blob, headers=headers)
    outputs = {each["name"]: each["data"] for each in answer.json()["outputs"]}
    assert outputs["class_name"] == ["bright"]


def test_the_policy_forbids_scripts_of_others(two):
    answer = two.http.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "img-src 'self' data: blob:;" in policy
    assert "unsafe" not in policy
    assert "://" not in answer.text


def test_contrast_of_the_colors():
    """Text has a contrast of at least 4.5, and controls one of 3, as WCAG 2 demands."""
    themes = re.findall(r":root \{([^}]*)\}", (PAGE / "page.css").read_text())
    assert len(themes) == 2
    for theme in themes:
        colors = dict(re.findall(r"--([\w-]+): #(\w+);", theme))
        for text, ground, least in [
            *(("ink", ground, 4.5) for ground in ("paper", "wash", "bad-wash")),
            *(("soft", ground, 4.5) for ground in ("paper", "wash")),
            ("accent", "paper", 4.5),
            ("on-accent", "accent", 4.5),
            ("bad", "bad-wash", 4.5),
            ("accent", "line", 3),  # the bars
        ]:
            lighter, darker = sorted(map(luminance, (colors[text], colors[ground])), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= least, (text, ground)


def luminance(color):
    """Returns the relative luminance of a colour, as WCAG 2 defines it."""
    digits = color if len(color) == 6 else "".join(2 * digit for digit in color)
    channels = np.array([int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]
