"""Settings: what the environment says, and nothing else."""

from dataclasses import FrozenInstanceError, fields

import pytest

from almanac.settings import Settings, SettingsError, from_environment


def test_an_empty_environment_gives_defaults() -> None:
    assert from_environment({}) == Settings()
    assert from_environment({"ALMANAC_IMAGE": "", "PATH": "/bin"}) == Settings()


def test_every_setting_can_be_set() -> None:
    given = {
        "ALMANAC_IMAGE": "registry.example/almanac:1",
        "ALMANAC_SPARK_IMAGE": "registry.example/almanac-spark:1",
        "ALMANAC_DASK_IMAGE": "registry.example/almanac-dask:1",
        "ALMANAC_SERVICE_ACCOUNT": "drivers",
        "ALMANAC_CPU": "500m",
        "ALMANAC_MEMORY": "2Gi",
        "ALMANAC_NAMESPACES": "finance, sales finance",
        "ALMANAC_NAMESPACE": "almanac",
        "ALMANAC_IDENTITY": "almanac-0",
        "ALMANAC_LEASE": "leader",
        "ALMANAC_METRICS_PORT": "0",
        "ALMANAC_LOG_LEVEL": "DEBUG",
    }
    read = from_environment(given)
    assert {f"ALMANAC_{field.name.upper()}" for field in fields(Settings)} == set(given)
    assert read.namespaces == ("finance", "sales")
    assert (read.metrics_port, read.log_level, read.cpu) == (0, "debug", "500m")
    assert all(getattr(read, field.name) != field.default for field in fields(Settings))


def test_no_lease_is_said_by_an_empty_one() -> None:
    assert from_environment({"ALMANAC_LEASE": ""}).lease == ""


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("ALMANAC_METRICS_PORT", "http"),
        ("ALMANAC_METRICS_PORT", "70000"),
        ("ALMANAC_NAMESPACES", "finance,Sales"),
        ("ALMANAC_CPU", "two"),
        ("ALMANAC_MEMORY", "0Gi"),
        ("ALMANAC_LOG_LEVEL", "loud"),
    ],
)
def test_what_cannot_be_is_refused_by_name(variable: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable}={text}: "):
        from_environment({variable: text})


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().image = "another"  # type: ignore[misc]
