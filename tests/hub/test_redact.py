"""What may leave the machine."""

from kdam_hf.hub.redact import is_hub_name, redact, redact_config

PATHS = ["/home/me/x", "~/x", "./x", "../x", "C:\\data", "C:/data", "\\\\host\\x", "file:///home/me", "FILE:/home/me"]
FORMS = ["{}", "split={}", "edges from {}, thinned", '["{}"]', "[{}]", "<{}>", "a;{}", "`{}`"]
ORDINARY = "n = 2 v / 255 - 1;km/h;train;a:b;org/name;1e-3;https://a.b/c;and/or;[m/s];profile"


def test_a_path_is_dropped_wherever_it_stands_and_ordinary_text_stays():
    for text in (form.format(path) for form in FORMS for path in PATHS):
        assert redact({"note": text, "kept": 1}) == {"kept": 1}
        assert redact({"list": [text, "kept"]}) == {"list": ["kept"]}
    for text in ORDINARY.split(";"):
        assert redact({"note": text}) == {"note": text}


def test_a_configuration_loses_the_folders_it_was_loaded_from_and_no_name(tmp_path, monkeypatch):
    (tmp_path / "outputs" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    tasks = [{"name": "semseg", "class_names": ["/m/01g317", "~other", "C:/x", "file:/x", "a"], "weights": None}]
    kept = {"tasks": tasks, "model": "./x", "_name_or_path": "org/name"}
    inner = [{"_name_or_path": "/home/me/resnet"}, {"_name_or_path": "outputs/x"}, {"_name_or_path": ""}]
    assert redact_config(kept | {"backbone_config": {"a": inner}}) == kept | {"backbone_config": {"a": [{}, {}, {}]}}


def test_keys_that_name_places_keep_ids_of_the_hub_only(tmp_path, monkeypatch):
    (tmp_path / "outputs" / "teacher").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    found = redact({"teacher": ["outputs/teacher", "org/teacher"], "data_dir": "data", "backbone_weights": "preset"})
    assert found == {"teacher": ["org/teacher"], "backbone_weights": "preset"}
    assert redact({"teacher": ["outputs/teacher"]}) == {}
    keys = "model teacher teacher_cache backbone_weights predictions ids resume_from_checkpoint images unlabeled"
    assert redact(dict.fromkeys(keys.split(), "runs/of/alice")) == {}
    assert redact({"single_task": {"depth": "runs/a/results.json"}, "prepared_dir": "outputs"}) == {"single_task": {}}
    assert is_hub_name("org/name")
    assert is_hub_name("org/name:configuration")
    assert not any(is_hub_name(text) for text in ("name", "org/a/b", "org/..", "", "a b/c", "org/name:/home/me"))


def test_a_folder_of_a_backbone_and_the_file_of_a_class_map_go_names_and_classes_stay(tmp_path, monkeypatch):
    (tmp_path / "own" / "backbone").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for preset in ("swin-tiny", "org/backbone", "timm/resnet18"):
        assert redact({"preset": preset}) == {"preset": preset}
    assert redact({"preset": "own/backbone", "class_map": "own/map.yaml"}) == {}
    used = {"class_map": {"semseg": {"flat": ["wall", "floor"]}}}
    assert redact(used) == used


def test_secrets_go_and_everything_else_is_kept_as_it_is():
    data = {"a": None, "b": [1, None, {"token": "x", "c": 2.5}], "hub_token": "hf_x", "d": True, "e": []}
    assert redact(data) == {"a": None, "b": [1, None, {"c": 2.5}], "d": True, "e": []}
