"""What MkDocs is told beyond mkdocs.yml: files of the repository that are no page, and the keys of recipes as tables."""

import ast
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)\s]+)\)")
KEYS = re.compile(r"^<!-- keys: (\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Keep the text alone of a link that leaves docs/; put tables where a page asks for them."""
    folder = (ROOT / "docs" / page.file.src_uri).parent

    def inside(link: re.Match[str]) -> str:
        there = (folder / link[2].partition("#")[0]).resolve()
        return link[0] if there.is_relative_to(ROOT / "docs") or not there.exists() else link[1]

    return KEYS.sub(lambda found: keys(found[1]), LINK.sub(inside, markdown))


def keys(name: str) -> str:
    """A table of the fields of a dataclass in kdam_hf/training/arguments.py, which cannot be imported without torch."""
    body = ast.parse((ROOT / "kdam_hf/training/arguments.py").read_text("utf-8")).body
    (fields,) = (node.body for node in body if isinstance(node, ast.ClassDef) and node.name == name)
    known: dict[str, ast.expr] = {}
    for node in body:
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            several = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            pairs = zip(target.elts, value.elts, strict=True) if several else [(target, value)]  # type: ignore[attr-defined]
            known |= {ast.unparse(one): constant for one, constant in pairs}
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    for field in fields:
        if isinstance(field, ast.AnnAssign) and isinstance(field.value, ast.Call):
            shown, words = (ast.literal_eval(known.get(ast.unparse(part), part)) for part in field.value.args)
            rows.append(f"| `{ast.unparse(field.target)}` | {'' if shown in (None, '') else f'`{shown}`'} | {words} |")
    return "\n".join(rows)
