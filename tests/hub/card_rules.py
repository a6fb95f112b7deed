"""What the Hub demands of the metadata of a card, as far as its documentation states it."""

import math

import yaml

LICENSES = {"unknown", "other", "apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0"}


def problems_of_card(content):
    """One sentence per violation; empty for a good card."""
    if not content.startswith("---\n") or "\n---\n" not in content[4:]:
        return ["no metadata between two lines '---'"]
    try:
        data = yaml.safe_load(content[4:].split("\n---\n")[0])
    except yaml.YAMLError as error:
        return [f"metadata is not YAML: {error}"]
    if not isinstance(data, dict):
        return ["metadata is no mapping"]
    problems = []
    if data.get("license", "unknown") not in LICENSES:
        problems.append(f'"license" must be one of {sorted(LICENSES)}, not {data["license"]!r}')
    for key in ("library_name", "pipeline_tag"):
        if not isinstance(data.get(key, ""), str):
            problems.append(f'"{key}" must be a string')
    for key in ("tags", "datasets", "metrics"):
        items = data.get(key, [])
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            problems.append(f'"{key}" must be a list of strings')
    return problems + problems_of_index(data.get("model-index", []))


def problems_of_index(index):
    if not isinstance(index, list):
        return ['"model-index" must be a list']
    problems = []
    for k, model in enumerate(index):
        here = f'"model-index[{k}]'
        if not isinstance(model.get("name"), str):
            problems.append(f'{here}.name" is required')
        for r, result in enumerate(model.get("results") or [{}]):
            there = f"{here}.results[{r}]"
            if not isinstance(result.get("task", {}).get("type"), str):
                problems.append(f'{there}.task.type" is required')
            if not all(isinstance(result.get("dataset", {}).get(key), str) for key in ("name", "type")):
                problems.append(f'{there}.dataset" needs a name and a type')
            metrics = result.get("metrics") or [{}]
            for metric in metrics:
                value = metric.get("value")
                if not isinstance(metric.get("type"), str) or value is None:
                    problems.append(f'{there}.metrics" need a type and a value')
                elif isinstance(value, float) and not math.isfinite(value):
                    problems.append(f'{there}.metrics" hold {value}')
    return problems
