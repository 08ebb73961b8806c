"""MarginLab: does a margin that tunes itself match the best margin that a search can find, and at what share of the cost?"""

__version__ = "0.1.0"
