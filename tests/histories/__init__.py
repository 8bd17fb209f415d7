"""``make histories``: concurrent processes under faults, and a checker of all that they did and saw."""
