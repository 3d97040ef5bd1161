"""Scores that can be believed: metrics, intervals, tasks, comparisons, and audits of what a model has memorised."""
