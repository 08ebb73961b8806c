"""Run folders, shown in MLflow. The only part of MarginLab that imports mlflow, and only once something is to be shown."""

from marginlab.tracking import champion, links
from marginlab.tracking.apart import Apart
from marginlab.tracking.catching_up import answered, catch_up
from marginlab.tracking.projector import Tracker
from marginlab.tracking.store import Store, TrackingAway, connect

__all__ = ["Apart", "Store", "Tracker", "TrackingAway", "answered", "catch_up", "champion", "connect", "links"]
