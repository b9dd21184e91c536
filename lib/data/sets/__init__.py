"""The real data sets, a file each: lists, groups, protocol, true answers."""

# Those whose `read` gives lists of videos; FlyingChairs has pairs of frames.
SETS = ("ucf101", "hmdb51", "jhmdb", "penn_action", "ucf101_24", "thumos14",
        "moments", "ut_interaction")
