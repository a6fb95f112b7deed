"""Say what is installed, which device and precision a training would use, and what to do about the rest.

    kdam doctor

Exit code 1 if the package cannot be imported as things are.
"""

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

SHOWN = (
    *("kdam-hf", "torch", "torchvision", "transformers", "accelerate"),
    *("datasets", "huggingface-hub", "numpy", "pillow"),
)
ABSENT = {"torchvision": ", and not needed", "kdam-hf": "; runs from a clone"}


def main(argv: Sequence[str] = ()) -> None:
    print(f"{'python':18}{platform.python_version()}, {platform.platform()}")
    for name in SHOWN:
        print(f"{name:18}{installed(name) or 'not installed' + ABSENT.get(name, '')}")
    for extra, missing in missing_of_extras().items():
        remedy = f"missing {', '.join(missing)}: pip install 'kdam-hf[{extra}]'"
        print(f"{f'extra {extra}':18}{remedy if missing else 'installed'}")
    from huggingface_hub import constants, get_token

    offline = "; offline (HF_HUB_OFFLINE), only what is on disk" if constants.HF_HUB_OFFLINE else ""
    print(f"{'Hub':18}{'a token is there' if get_token() else 'not logged in: hf auth login'}{offline}")
    try:
        print(f"{'a training':18}{would_use()}")
    except Exception as error:  # whatever an installation that does not fit together raises
        print(f"{'a training':18}cannot start: {error}")
        sys.exit(1)


def installed(name: str) -> str | None:
    """Its version, with what keeps a torchvision from being imported."""
    try:
        found = version(name)
    except PackageNotFoundError:
        return None
    if name != "torchvision":
        return found
    try:
        import torchvision  # noqa: F401
    except Exception as error:
        return f"{found} does NOT fit torch ({error}): pip uninstall torchvision, or the version for this torch"
    return f"{found}, fits torch"


def missing_of_extras() -> dict[str, list[str]]:
    """Extra -> its packages that are not installed in a version that will do."""
    missing: dict[str, list[str]] = {}
    for text in (requires("kdam-hf") or []) if installed("kdam-hf") else []:
        needed, _, marker = text.partition(";")
        if "extra ==" in marker:
            extra, requirement = marker.split("extra ==")[1].strip(" \"')"), Requirement(needed)
            found = installed(requirement.name)
            good = found is not None and requirement.specifier.contains(version(requirement.name), prereleases=True)
            missing.setdefault(extra, []).extend([] if good else [needed.strip()])
    return missing


def would_use() -> str:
    """Devices, precision and threads of one process."""
    import torch

    from kdam_hf.training.arguments import available_cores, fast_bf16

    precision, cores = f"precision {'bf16' if fast_bf16() else 'fp32'}", f"{available_cores()} cores"
    if not torch.accelerator.is_available():
        return f"the CPU ({cores}), {precision}"
    device, count = torch.accelerator.current_accelerator(), torch.accelerator.device_count()
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    more = f"; all {count} with --num_processes {count}" if count > 1 else ""
    return f"{device} {name}, {precision}{more}; {cores} for data"
