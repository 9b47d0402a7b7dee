import pytest

from tests.harness import wording


def test_the_project_uses_its_own_words():
    assert wording.problems() == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("is evaluated again, recommended, in the houses, between", []),
        ("one\nthe images asked\n    about are few", [(2, "asked about")]),
        ("what it Comes to, Anew", [(1, "Comes to"), (1, "Anew")]),
        ("def inference_twin(): # after epoch 3, behind epoch 3", [(1, "twin"), (1, "behind epoch")]),
    ],
)
def test_words_are_found_in_any_case_and_over_line_ends(text, found):
    assert [(line, words) for line, words, _ in wording.find(text)] == found
