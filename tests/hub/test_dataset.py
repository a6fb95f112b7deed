"""A data set goes to the Hub through its builder and comes back as training samples."""

import trees
from hub_kit import run_python

THERE_AND_BACK = """
import sys
import numpy as np
from dataset_loaders import open_dataset
from dataset_loaders.builders import OwnData
builder = OwnData(data_dir=sys.argv[1], cache_dir=sys.argv[2])
builder.download_and_prepare()
builder.as_dataset().push_to_hub("org/own", private=True)
for split in ("train", "val"):
    here, there = open_dataset("folder", split, sys.argv[1]), open_dataset("hub", split, "org/own")
    assert there.ids == here.ids and [t.spec() for t in there.tasks] == [t.spec() for t in here.tasks]
    for k in range(len(here)):
        assert np.array_equal(here[k]["image"], there[k]["image"])
        assert np.array_equal(here[k]["labels"]["semseg"], there[k]["labels"]["semseg"])
"""


def test_what_a_builder_pushed_trains_as_it_was(hub, tmp_path):
    trees.write_tree("folder", tmp_path / "own")
    env = hub.environment(tmp_path / "home") | {"HF_DATASETS_CACHE": str(tmp_path / "datasets")}
    run_python("-c", THERE_AND_BACK, tmp_path / "own", tmp_path / "cache", env=env)
    files = hub.files("org/own", kind="dataset")
    assert {name.split("-")[0] for name in files if name.endswith(".parquet")} == {"data/train", "data/val"}
    assert any(method == "GET" and path.endswith(".parquet") for method, path in hub.log), "rows came from the Hub"
    assert hub.repositories["dataset", "org/own"].private
