"""Programs for people and CI around the product: pinned tools, images, a whole evaluation cluster.

Run from the root of the repository as modules (`python -m tools.images …`). Nothing in here is part of what is
installed, and nothing that is installed imports it.
"""
