"""The only place that imports Ray: where a study's trials and confirmation runs are scheduled."""

import os
import sys

# Ray reads these when it is imported or when its processes start, so they are set before either. A user's own settings win.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # results and ends reach the driver on this poll; the default is 2 s
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    # One process less per worker group: runs keep a checkpoint of every epoch, and need no warning before their node goes.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the command line draws progress itself
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # With reused actors a trial that takes longer than this to unwind would hang the study; the default is 2 s.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that stops on the way reports nothing to Tune
    # Tune would keep and write what it knows of all trials, 10 kB of each, again and again; a study is resumed without it.
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the study, not only the search
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
if "ray" in sys.modules:  # too late: this process has its mode, and processes that it starts must not have another
    del ENVIRONMENT["RAY_AUTH_MODE"]
for _name, _setting in ENVIRONMENT.items():
    ENVIRONMENT[_name] = os.environ.setdefault(_name, _setting)
