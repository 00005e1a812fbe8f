"""Where tasks, results, events and schedules are kept: four interfaces and their families."""
