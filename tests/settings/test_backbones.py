from settings import loading


def test_the_license_of_imagenet_weights_mentions_the_terms_of_the_images():
    config = loading.load(overrides=["model.architecture=mobilenetv2"])
    weights_license = config.describe_model()["weights_license"] or ""
    for words in ("Apache License 2.0", "ImageNet's images", "non-commercial"):
        assert words in weights_license
