"""The only place that imports Ray: where a study's trials and confirmation runs are scheduled."""
