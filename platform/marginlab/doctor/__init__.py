"""What ``marginlab doctor`` looks at before a study starts, on this machine and on every node of a cluster.

``node.py`` looks and judges nothing; ``findings.py`` judges what was seen, in sentences; ``cluster/nodes.py`` has every node look.
"""
