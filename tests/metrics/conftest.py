"""Settings of the property tests: the same examples every time, and no deadline.

A deadline would measure the machine: a function may load SciPy on its first call.
"""

from hypothesis import settings

settings.register_profile("metrics", deadline=None, derandomize=True)
settings.load_profile("metrics")
