"""What a recipe would build of clips: names and values, as JSON has them."""

from typing import Any

from mmcoop.datasets.reader import SPLITS
from mmcoop.datasets.rejects import FIRST, count_reasons
from mmcoop.recipes.clip_recipe import Listing, by_split, limited


def listing_facts(listing: Listing, limit: int | None = None) -> dict[str, Any]:
    """What a recipe would build: what is asked for, what of it is there, what is missing.

    `limit`: the recipe's own, which decides how many of those found are read.
    """
    chosen = limited(listing.found, limit)
    asked, found, to_read, missing = (
        {"clips": len(clips), **by_split(clips)}
        for clips in (listing.clips, listing.found, chosen, listing.missing)
    )
    absent = [path for clip in listing.missing for path in clip.absent]
    trained = {clip.label for clip in chosen if clip.split == "train"}
    return {
        "recipe": listing.name,
        "classes": list(listing.classes),
        "asked_for": asked,
        "found": found,
        "to_read": to_read,
        "first_to_read": [
            {"id": clip.id, "files": [str(path) for path in clip.paths.values()]}
            for clip in chosen[:FIRST]
        ],
        "missing": missing,
        "first_missing": [clip.id for clip in listing.missing[:FIRST]],
        **({"first_missing_files": absent[:FIRST]} if absent else {}),
        "in_the_source": listing.names,
        "splits_without_a_clip": [split for split in SPLITS if not found[split]],
        "classes_without_a_training_clip": [
            name for label, name in enumerate(listing.classes) if label not in trained
        ],
        "groups_in_several_splits": {"groups": sum(listing.leakage.values()), **listing.leakage},
        "rejects": count_reasons(listing.rejects),
        "first_rejects": [reject._asdict() for reject in listing.rejects[:FIRST]],
        **listing.report,
    }
