"""The real data sets, a file each: lists, groups, protocol, true answers."""
