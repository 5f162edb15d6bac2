"""Settings of all rooms' tests."""

from hypothesis import settings

# A test says what comes out, never how fast: machines that run tests are busy ones.
settings.register_profile("house", deadline=None)
settings.load_profile("house")
