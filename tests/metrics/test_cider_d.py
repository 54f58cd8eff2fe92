import random

import pytest

from cwdpo.metrics.cider_d import CiderD


def corpus(images):
    generator = random.Random(1)
    words = ["a", "a", "a", "the", "the", "on", "of", "dog", "cat", "bus", "red", "blue", "big", "man", "runs", "sits"]

    def caption(shortest=1):
        return generator.choices(words, k=generator.randint(shortest, 12))

    return [caption(shortest=0) for _ in range(images)], [
        [caption() for _ in range(generator.randint(1, 5))] for _ in range(images)
    ]


def test_equal_to_pycocoevalcap():
    from pycocoevalcap.cider.cider import Cider

    candidates, references = corpus(300)
    candidates[:3] = [references[0][0], [], ["unheard"]]
    joined = {i: [" ".join(tokens) for tokens in texts] for i, texts in enumerate(references)}
    _, expected = Cider().compute_score(joined, {i: [" ".join(tokens)] for i, tokens in enumerate(candidates)})
    metric = CiderD.from_references(references)
    found = [metric.score(*pair) for pair in zip(candidates, references, strict=True)]
    assert found == pytest.approx(list(expected), abs=1e-12)


def test_a_copy_scores_ten_and_a_stranger_zero():
    bus, dogs = ["a", "red", "bus", "here"], ["two", "dogs", "run", "home"]
    metric = CiderD.from_references([[bus], [dogs]])
    assert metric.score(bus, [bus]) == pytest.approx(10.0)
    assert metric.score(dogs, [bus]) == 0.0
    assert metric.score([], [bus]) == 0.0


def test_a_word_of_every_image_weighs_nothing():
    metric = CiderD.from_references([[["a", "bus"]], [["a", "dog"]]])
    assert metric.score(["a"], [["a", "bus"]]) == 0.0


def test_frequencies_count_images_not_captions():
    metric = CiderD.from_references([[["dog"], ["dog"]], [["dog"]], [["cat"]]])
    assert metric.documents == 3
    # What occurs in one image weighs as much as what occurs in none and is not kept.
    assert metric.document_frequency == {("dog",): 2}
