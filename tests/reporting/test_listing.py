"""What a recipe would build."""

import json
from pathlib import Path

from mmcoop.datasets.clip_reader import Clip
from mmcoop.datasets.reader import SPLITS
from mmcoop.datasets.rejects import Reject
from mmcoop.recipes.clip_recipe import Listing
from mmcoop.reporting.listing import listing_facts


def test_the_facts_of_a_listing():
    def clip(id: str, split: str, group: str, there: bool = True) -> Clip:
        return Clip(id, split, 0, group, {"path": Path("in", id)} if there else {})

    listing = Listing(
        name="mine",
        source="the tests",
        classes=("low", "high"),
        clips=[
            clip("a", "test", "one"),
            clip("b", "train", "one"),
            *(clip(f"gone{k}", "train", f"video{k}", there=False) for k in range(7)),
            clip("c", "validation", "video0", there=False),
        ],
        kinds={},
        names="a.mp4, b.mp4",
        rejects=[
            Reject("x", "duplicate", "line 3 repeats line 2"),
            Reject("y", "duplicate"),
            Reject("z", "unknown-class"),
        ],
        report={"moved": {"test to train": 3}},
    )
    facts = listing_facts(listing)
    assert facts == {
        "recipe": "mine",
        "classes": ["low", "high"],
        "asked_for": {"clips": 10, "train": 8, "validation": 1, "test": 1},
        "found": {"clips": 2, "train": 1, "validation": 0, "test": 1},
        "to_read": {"clips": 2, "train": 1, "validation": 0, "test": 1},
        "first_to_read": [{"id": "a", "files": ["in/a"]}, {"id": "b", "files": ["in/b"]}],
        "missing": {"clips": 8, "train": 7, "validation": 1, "test": 0},
        "first_missing": [f"gone{k}" for k in range(5)],
        "in_the_source": "a.mp4, b.mp4",
        "splits_without_a_clip": ["validation"],
        "classes_without_a_training_clip": ["high"],
        "groups_in_several_splits": {"groups": 2, "train+test": 1, "train+validation": 1},
        "rejects": {"duplicate": 2, "unknown-class": 1},
        "first_rejects": [
            {"id": "x", "reason": "duplicate", "detail": "line 3 repeats line 2"},
            {"id": "y", "reason": "duplicate", "detail": ""},
            {"id": "z", "reason": "unknown-class", "detail": ""},
        ],
        "moved": {"test to train": 3},
    }
    assert json.loads(json.dumps(facts)) == facts


def test_a_limit_says_how_many_clips_are_read_and_which_classes_are_left_without():
    clips = [
        Clip(
            f"{split}{k}", split, k // 5, f"{split}{k}", {"a": Path(f"{k}.a"), "b": Path(f"{k}.b")}
        )
        for split in SPLITS
        for k in range(10)
    ]
    listing = Listing("mine", "the tests", ("low", "high"), clips, {}, "0.a")
    whole, three, one = (listing_facts(listing, limit) for limit in (None, 3, 1))
    assert whole["to_read"] == whole["found"] == three["found"]
    assert three["to_read"] == {"clips": 9, "train": 3, "validation": 3, "test": 3}
    assert [each["id"] for each in three["first_to_read"]] == [
        "train0",
        "train1",
        "train5",
        "validation0",
        "validation1",
    ]
    assert three["first_to_read"][0]["files"] == ["0.a", "0.b"]
    assert three["classes_without_a_training_clip"] == []
    assert one["classes_without_a_training_clip"] == ["high"]
    assert three["splits_without_a_clip"] == []


def test_the_first_files_that_are_missing_are_among_the_facts_of_a_listing():
    clips = [
        Clip(f"{k}", "train", 0, f"{k}", {}, absent={f"{k}.a": ["x"], f"{k}.b": ["y"]})
        for k in range(6)
    ]
    facts = listing_facts(Listing("mine", "the tests", ("low",), clips, {}, "nothing"))
    assert facts["first_missing"] == ["0", "1", "2", "3", "4"]
    assert facts["first_missing_files"] == ["0.a", "0.b", "1.a", "1.b", "2.a"]
