"""What a row of figures says, in this order."""

COLUMNS = [
    *"source regime offered load n redundant policy seed groups p50_s p95_s p99_s p999_s mean_s std_s".split(),
    *"group_p50_s group_p95_s group_p99_s group_p999_s group_std_s coded_share unsure_share coded_accuracy".split(),
    *"accuracy accuracy_available collage_load replica_load busy_s".split(),
]
