from tfx.types import standard_artifacts

from pipeline import baseline


def _model(artifact_id):
    model = standard_artifacts.Model()
    model.id = artifact_id
    return model


def _blessing(model, blessed):
    blessing = standard_artifacts.ModelBlessing()
    blessing.set_int_custom_property("current_model_id", model.id)
    blessing.set_int_custom_property("blessed", int(blessed))
    return blessing


def _resolve(models, blessings, candidate):
    strategy = baseline.LatestOtherBlessedModel()
    inputs = {"model": list(models), "model_blessing": blessings, "candidate": [candidate]}
    return [m.id for m in strategy.resolve_artifacts(None, inputs)["model"]]


def test_the_last_blessed_model_is_taken():
    models = [_model(i) for i in (1, 2, 3)]
    blessings = [_blessing(models[0], True), _blessing(models[1], True), _blessing(models[2], False)]
    assert _resolve(models, blessings, candidate=_model(4)) == [2]


def test_a_blessed_candidate_is_not_its_own_baseline():
    models = [_model(i) for i in (1, 2)]
    blessings = [_blessing(m, True) for m in models]
    assert _resolve(models, blessings, candidate=models[1]) == [1]


def test_a_first_model_has_no_baseline():
    model = _model(1)
    assert _resolve([model], [], candidate=model) == []
    assert _resolve([model], [_blessing(model, True)], candidate=model) == []
