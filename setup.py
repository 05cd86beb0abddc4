"""For colcon, which refuses a package without this file; pyproject.toml says everything."""

from setuptools import setup

dist = setup()
# colcon-python-setup-py#56: it reads literals only, and no type of setuptools.
dist.python_requires = dist.metadata.python_requires = str(dist.python_requires)
