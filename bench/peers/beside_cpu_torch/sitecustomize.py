"""Lets torchvision be imported beside a CPU build of torch. Python imports this at its start where the folder is in PYTHONPATH.

The registry's torchvision is compiled for the registry's torch, the CUDA build; beside a "+cpu" one its operators are
missing, and its import ends with "operator torchvision::nms does not exist". Picture processors call none of them: the
two that the import asks for are declared, without a body, when torchvision is first asked for.
"""
import importlib.metadata
import sys


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


class Declare:
    """A finder that finds nothing: it only sees which module is looked for."""

    def find_spec(self, name, *_):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch  # not before: most processes here need none
            self.library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


if version("torch").endswith("+cpu") and version("torchvision") and not version("torchvision").endswith("+cpu"):
    DECLARE = Declare()  # kept: the end of its library would take the operators back
    sys.meta_path.insert(0, DECLARE)
