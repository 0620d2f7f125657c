"""What makes two configs the same run."""

from jaxvit import config as config_lib


def test_differences_ignore_what_a_run_works_out_itself():
    given = config_lib.default()
    resolved = config_lib.to_dict(given)
    resolved["data"]["mean"] = [0.5]
    resolved["model"]["num_classes"] = 10
    assert config_lib.differences(given, resolved) == []
    given.num_epochs = 11
    given.data.mean = (0.25,)
    assert config_lib.differences(given, resolved) == ["data.mean: [0.5] -> [0.25]", "num_epochs: 10 -> 11"]
