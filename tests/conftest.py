"""What holds for tests of every level."""

from hypothesis import HealthCheck, settings

# A busy machine is no defect of what is tested: nothing here depends on how long it took.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
