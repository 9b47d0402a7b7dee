import dataclasses
import json
import shutil
import zipfile

import keras
import pytest

from eo_keras.core.output_folders import MANIFEST_NAME
from eo_keras.errors import RecordsError, RunError
from eo_keras.records import data_card as cards
from eo_keras.runs import event_files
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from tests.kept import contents


@pytest.fixture
def copy(finished, tmp_path):
    """A run that a test may damage."""
    return shutil.copytree(finished[0].run_dir, tmp_path / "run")


def test_a_run_without_card_or_model(copy, tmp_path):
    with pytest.raises(RunError, match="no such folder"):
        runs.open_run(tmp_path / "none")
    (copy / runs.MODEL_NAME).unlink()
    with pytest.raises(RunError, match="model.keras: there is no such file"):
        runs.open_run(copy)
    (copy / model_cards.MODEL_CARD_NAME).unlink()
    with pytest.raises(RunError, match="holds no model_card.json"):
        runs.open_run(copy)


def test_a_damaged_model(copy):
    path = copy / runs.MODEL_NAME
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match="no .keras file"):
        runs.open_run(copy)
    path.write_bytes(content[:5000] + bytes(3000) + content[8000:])
    with pytest.raises(RunError, match="cannot be loaded"):
        runs.open_run(copy)


def test_a_model_that_brings_code_is_refused(copy):
    image = keras.Input((64, 64, 3), dtype="uint8")
    keras.Model(image, keras.layers.Lambda(lambda x: x)(image)).save(copy / runs.MODEL_NAME)
    with pytest.raises(RunError, match="cannot be loaded .*[Ll]ambda"):
        runs.open_run(copy)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("bands", ("B04", "B03"), r"expected input \(64, 64, 2\), uint8"),
        ("dtype", "uint16", r"a model of input \(64, 64, 3\), uint8, and 10 classes; expected .* uint16"),
    ],
)
def test_a_card_of_another_model(copy, field, value, words):
    model_cards.write_model_card(dataclasses.replace(model_cards.read_model_card(copy), **{field: value}), copy)
    with pytest.raises(RunError, match=words):
        runs.open_run(copy)


def test_a_card_that_was_edited_by_hand(copy):
    path = copy / model_cards.MODEL_CARD_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dtype": "uint16"}))
    with pytest.raises(RunError, match="does not agree with its checksum"):
        runs.open_run(copy)


def test_a_saved_model_is_whole_or_not_there(finished, tmp_path, monkeypatch):
    model = runs.open_run(finished[0].run_dir).model
    runs.save_model(model, tmp_path / "m.keras")
    assert zipfile.is_zipfile(tmp_path / "m.keras")
    before = (tmp_path / "m.keras").read_bytes()

    def interrupted(path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runs.save_model(model, tmp_path / "m.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]
    assert (tmp_path / "m.keras").read_bytes() == before


def test_a_damaged_state(copy):
    (copy / runs.CHECKPOINT_DIR / runs.STATE_NAME).write_text("{")
    assert runs.read_state(copy)["epoch"] == 2  # The checkpoint before.
    (copy / runs.CHECKPOINT_DIR / runs.PREVIOUS_STATE_NAME).write_text("{")
    with pytest.raises(RunError, match="state.json: it cannot be read"):
        runs.read_state(copy)


def test_records_of_a_run_are_found_from_anywhere(copy, rgb_records, tmp_path, monkeypatch):
    def trained_on(name):
        card = dataclasses.replace(model_cards.read_model_card(copy), flags={"records_dir": str(name)})
        return runs.find_records(copy, card)

    def records(folder, fingerprint=None):
        folder.mkdir(parents=True)
        card = cards.read_data_card(rgb_records)
        cards.write_card(dataclasses.replace(card, fingerprint=fingerprint or card.fingerprint), folder)
        return str(folder)

    monkeypatch.chdir(tmp_path)
    assert trained_on(rgb_records) == str(rgb_records) and trained_on("s3://bucket/records") == "s3://bucket/records"
    with pytest.raises(RecordsError, match=f"{copy}: .* trained on, sub/records, are not there.* by `records_dir"):
        trained_on("sub/records")
    # Where the run was begun, as it says itself.
    began = json.loads((copy / runs.ENVIRONMENT_NAME).read_text())
    assert began["working_directory"]
    (copy / runs.ENVIRONMENT_NAME).write_text(json.dumps(began | {"working_directory": str(tmp_path / "began")}))
    other = records(tmp_path / "began" / "sub" / "records", "0" * 64)
    with pytest.raises(RecordsError, match=f"; {other} holds other ones"):
        trained_on("sub/records")
    shutil.rmtree(other)
    records(tmp_path / "began" / "sub" / "records")
    assert trained_on("sub/records") == other
    # What is here goes before, if it is the same; if none is the same, what is here is said to be another one later.
    here = records(tmp_path / "sub" / "records", "0" * 64)
    assert trained_on("sub/records") == other
    shutil.rmtree(other)
    assert trained_on("sub/records") == "sub/records"
    shutil.rmtree(here)
    # Beside the run folder, where both were moved.
    moved = records(copy.parent / "moved" / "records")
    monkeypatch.chdir("/")
    assert trained_on("moved/records") == moved


def test_a_run_of_an_earlier_version_opens_and_cannot_be_gone_on_with(copy):
    (copy / runs.CHECKPOINT_DIR).rename(copy / "checkpoint")
    (copy / MANIFEST_NAME).unlink()
    assert runs.open_run(copy).card == runs.open_run(copy, runs.LAST_MODEL_NAME).card
    before = contents(copy)
    with pytest.raises(RunError, match=f"of an earlier version. Start another run from .*`weights={copy}/model.keras"):
        runs.check_folder(copy, resume=True, overwrite=False)
    for overwrite in (False, True):
        with pytest.raises(RunError, match="did not write"):
            runs.check_folder(copy, resume=False, overwrite=overwrite)
    assert contents(copy) == before


@pytest.mark.parametrize("name", ["", "/train", "/train/events.out.tfevents.0000002.0-steps"])
@pytest.mark.parametrize("linked", [False, True])
def test_event_files_in_the_way_are_refused_before_the_earlier_run_is_removed(copy, tmp_path, name, linked):
    path = copy / f"{event_files.TENSORBOARD_DIR}{name}"
    theirs = tmp_path / "elsewhere"
    shutil.move(path, theirs) if path.exists() else theirs.write_bytes(b"mine")
    if linked:
        path.symlink_to(theirs)
    elif theirs.is_dir():
        path.write_bytes(b"mine")
    else:
        (copy / MANIFEST_NAME).unlink()  # A listed file that has changed is no obstacle.
        path.write_bytes(b"mine")
        [file.unlink() for file in copy.rglob("*") if file.is_file() and file != path]
    before = contents(copy)
    taken = runs.run_folder(copy, resume=False, overwrite=True, flags_text="")
    with pytest.raises(RunError, match=f"{path.name}: .*the name is needed. Move it away"), taken:
        pass
    assert contents(copy) == before


@pytest.mark.parametrize("resume", [False, True])
def test_the_folder_of_somebody_else_is_not_taken_for_a_run(tmp_path, resume):
    for name in ("evaluation/mine.csv", "tensorboard/events", "history.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"mine")
    before = contents(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(RunError), runs.run_folder(tmp_path, resume=resume, overwrite=overwrite, flags_text=""):
            pass
    (tmp_path / "history.csv").unlink()
    with runs.run_folder(tmp_path, resume=False, overwrite=True, flags_text="--a=1\n") as output:
        (line,) = output.take_warnings()
    assert "'evaluation/mine.csv', 'tensorboard/events'" in line
    assert {name: data for name, data in before.items() if name != "history.csv"}.items() <= contents(tmp_path).items()


@pytest.mark.parametrize("manifest", [True, False])
@pytest.mark.parametrize("edited", [True, False])
def test_a_card_with_more_scores_takes_nothing_of_the_users(copy, manifest, edited):
    path = copy / model_cards.MODEL_CARD_NAME
    if edited:
        path.write_bytes(path.read_bytes() + b"\n")
    if not manifest:
        (copy / MANIFEST_NAME).unlink()
    card, before = model_cards.read_model_card(copy), path.read_bytes()
    warnings = runs.write_card(dataclasses.replace(card, scores={"test": {"accuracy": 0.5}}), copy)
    kept = path if edited and not manifest else path.with_name(f"{path.name}.kept-1")
    assert len(warnings) == edited and all(path.name in line for line in warnings)
    assert kept.exists() == edited and (not edited or kept.read_bytes() == before)
    assert ("test" in model_cards.read_model_card(copy).scores) == (manifest or not edited)
    # The next run there replaces it.
    assert runs.output_folder(copy).is_own(path.name) == manifest
