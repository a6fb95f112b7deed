from conftest_kit import kit, teacher  # noqa: F401
