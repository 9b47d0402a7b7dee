import json
import shutil

from benchmarks import results


def test_the_page_is_what_the_json_says():
    assert (results.DOCS / "results.md").read_text() == results.page(results.DOCS / "results")


def test_every_measured_result_can_be_repeated_and_another_number_shows(tmp_path):
    folder = shutil.copytree(results.DOCS / "results", tmp_path / "results")
    found = results.measured(folder)
    assert found
    text = results.page(folder)
    for path in found:
        assert f"--flagfile=docs/results/{path.name}/flags.txt" in text
        assert "--model=" in (path.folder / "flags.txt").read_text()
        metrics = json.loads((path.folder / "metrics.json").read_text())
        assert f"**{metrics['scores']['accuracy']:.2%}**" in text and metrics["split"] == "test"
        metrics["scores"]["accuracy"] = 0.1234
        (path.folder / "metrics.json").write_text(json.dumps(metrics))
    assert "12.34%" in results.page(folder)
