"""What both trainings share: run folder, resume without pickle, schedules, averaged weights."""
