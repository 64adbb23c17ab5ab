"""What did not get in: counted by reason, and told in a message."""

from mmcoop.datasets.rejects import Reject, count_reasons, why_not


def test_rejects_are_counted_by_reason_in_the_order_of_their_names():
    rejects = [Reject("a", "unreadable"), Reject("b", "missing"), Reject("c", "unreadable", "-")]
    assert list(count_reasons(rejects).items()) == [("missing", 1), ("unreadable", 2)]
    assert count_reasons([]) == {}


def test_a_message_says_how_many_why_and_which_is_the_first():
    rejects = [Reject("b", "missing", "no file found")] * 1200
    rejects += [Reject("a", "unreadable", "a.mp4: end of file")]
    assert why_not(rejects) == (
        " (1,201 rejected: missing 1,200, unreadable 1; the first: a, unreadable: "
        "a.mp4: end of file)"
    )
    assert why_not([]) == ""
